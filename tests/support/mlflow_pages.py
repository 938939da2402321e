"""The pages of MLflow's user interface that show what adapterctl keeps there."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.browser import Browser

# A first visitor sees an announcement, an assistant and the pages for prompts; these are the choices of one who has
# been there before. Unknown keys do nothing.
_VISITED = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
}
_EXPANDERS = "[...document.querySelectorAll('button[data-component-id*=\"runnamecellrenderer\"]')]"
_DRAWN = "document.querySelectorAll('.js-plotly-plot .main-svg').length"


class Pages:
    """Opens pages and waits until they are drawn; every method returns the text that is shown."""

    def __init__(self, browser: Browser, url: str, experiment_id: str) -> None:
        self.browser, self._url, self._experiment = browser, url, experiment_id
        browser.open(f"{url}/health")
        for name, value in _VISITED.items():
            browser.js("localStorage.setItem(arguments[0], arguments[1])", name, value)

    def models(self, *texts: str) -> str:
        """All registered models."""
        return self._open("/#/models", *texts)

    def model(self, name: str, *texts: str) -> str:
        """One registered model and its versions."""
        return self._open(f"/#/models/{name}", *texts)

    def version(self, name: str, number: int, *texts: str) -> str:
        """One version and its description."""
        return self._open(f"/#/models/{name}/versions/{number}", *texts)

    def runs(self, parents: Sequence[str], nested: Sequence[str]) -> str:
        """The runs of the experiment; the nested ones are shown once their parents are opened."""
        self._open(f"/#/experiments/{self._experiment}/runs", *parents)
        self.browser.wait_until(f"{_EXPANDERS}.length >= {len(parents)}")
        # From the last row up: opening a row moves those below it.
        for row in reversed(range(self.browser.js(f"return {_EXPANDERS}.length"))):
            self.browser.js(f"{_EXPANDERS}[arguments[0]].click()", row)
        return self.browser.wait_for(*nested)

    def run(self, run_id: str, *texts: str) -> str:
        """One run: description, metrics, parameters."""
        return self._open(f"/#/experiments/{self._experiment}/runs/{run_id}", *texts)

    def show_more(self) -> str:
        """The whole of a run's description, of which the page of the run shows the beginning."""
        self.browser.js("[...document.querySelectorAll('button')].find(b => b.innerText === 'Show more').click()")
        return self.browser.wait_for("Show less")

    def curves(self, run_id: str, *texts: str) -> str:
        """One run's metrics as charts."""
        self._open(f"/#/experiments/{self._experiment}/runs/{run_id}/model-metrics", *texts)
        return self.browser.wait_until(_DRAWN)

    def picture(self, run_id: str, name: str) -> str:
        """One picture among a run's artifacts."""
        self._open(f"/#/experiments/{self._experiment}/runs/{run_id}/artifacts/{name}", name)
        return self.browser.wait_until(self.pictures)

    def table(self, run_id: str, name: str, *texts: str) -> str:
        """One table among a run's artifacts."""
        return self._open(f"/#/experiments/{self._experiment}/runs/{run_id}/artifacts/{name}", name, *texts)

    @property
    def pictures(self) -> str:
        """JavaScript for the number of pictures that are loaded and larger than an icon."""
        return "[...document.images].filter(i => i.complete && i.naturalWidth > 300).length"

    def _open(self, path: str, *texts: str) -> str:
        self.browser.open(self._url + path)
        return self.browser.wait_for(*texts)
