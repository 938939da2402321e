"""The folder of an export: downloaded, checked against its target, truncated or converted, and put on the shelf."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.errors import AdapterError, Problem, RegistryError
from adapterctl.fingerprint import short
from adapterctl.registry.names import merged_name
from adapterctl.serving.shelf import Shelf
from adapterctl.serving.targets import Target
from adapterctl.workflows.export_base import ServingBase
from adapterctl.workflows.export_options import Wanted
from adapterctl.workflows.folders import holds
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session

if TYPE_CHECKING:
    from adapterctl.lora.adapter import Adapter
    from adapterctl.registry.versions import Version


@dataclass
class Work:
    """One export under way.

    Attributes:
        session: The command at work.
        wanted: What is to be exported.
        version: The version in the registry.
        release: What stands behind it.
        notes: What a person should know.
    """

    session: Session
    wanted: Wanted
    version: Version
    release: Release
    notes: list[str] = field(default_factory=list)

    @property
    def target(self) -> Target:
        """What it is for."""
        return self.wanted.aim

    @property
    def label(self) -> str:
        """What messages call it."""
        return str(self.version)


@dataclass(frozen=True)
class Made:
    """A version that lies on the shelf, whole.

    Attributes:
        shelf: The folder of all versions.
        name: Of its own folder.
        card: What its ``serving.json`` says.
        reused: Whether it was there already.
    """

    shelf: Shelf
    name: str
    card: dict[str, Any]
    reused: bool


def on_the_shelf(work: Work, base: ServingBase | None) -> Made:
    """Return the release on the shelf, put there where it is not there whole.

    Raises:
        AdapterError: The target would refuse the release; ``problems`` has every reason.
        RegistryError: The registry does not hold what it should.
        UsageError: What is needed to write it is not here.
        StorageError: The disk is full, read-only or not permitted.
    """
    from adapterctl.serving.card import head_of

    release, registered = work.release, merged_name(work.session.project)
    shelf = Shelf.open(work.wanted.to, registered)
    kind = work.target.kind
    head = head_of(
        kind,
        model=f"{registered}-v{release.version}",
        project=work.session.project,
        version=release.version,
        content_hash=release.content_hash,
        base=release.base,
        base_identity=release.base_identity,
        fitted_rank=None,
    )
    plain = f"v{release.version}-{short(release.content_hash)}"
    if kind != "adapter":
        name = f"{plain}-{kind}"
        if (card := shelf.held(name, head)) is not None:
            return Made(shelf, name, card, True)
    elif (card := shelf.held(plain, head)) is not None and holds(shelf.root / plain, release.content_hash):
        # What the target refuses depends on options too; and it may have been exported for another one.
        made = Made(shelf, plain, card, True)
        fitted = _checked(work, base, _opened(shelf.root / plain))
        return made if fitted is None else _fitted(work, shelf, shelf.root / plain, head, plain, fitted)
    with shelf.bench() as bench:
        source = bench / "release"
        work.session.registry.download(work.version, source)
        if not holds(source, release.content_hash):
            raise RegistryError(
                f"{work.version} does not hold the adapter that its content hash names",
                hint="check the artifact store of the registry, or choose another version: adapterctl history",
            )
        fitted = _checked(work, base, _opened(source))
        if kind != "adapter":
            assert base is not None
            return _converted(work, base, shelf, source, head, f"{plain}-{kind}")
        if fitted is not None:
            return _fitted(work, shelf, source, head, plain, fitted)
        return _put(work, shelf, source, {**head, **_details(work, source, None)}, plain)


def _opened(folder: Path) -> Adapter:
    from adapterctl.lora.adapter import Adapter

    return Adapter.open(folder)


def _checked(work: Work, base: ServingBase | None, adapter: Adapter) -> int | None:
    """Refuse what the target would refuse, or would serve wrongly; return the rank to truncate to, None for none."""
    from adapterctl.lora.untrusted import shown
    from adapterctl.serving import checks

    target, wanted = work.target, work.wanted
    if target.name == "peft":
        return None
    problems = checks.refusals(target, adapter, work.label)
    if adapter.base_model != work.release.base:
        message = f"it records the base model {shown(adapter.base_model)}, and the release {shown(work.release.base)}"
        problems.append(Problem(work.label, message, "merge again"))
    rank = checks.rank_of(adapter)
    of_rank = checks.rank_problems(target, rank, wanted.max_lora_rank, work.label)
    most = wanted.max_lora_rank if wanted.max_lora_rank is not None else max(target.ranks, default=rank)
    fits = wanted.fit and rank > most and (not target.ranks or most in target.ranks)
    problems += [] if fits else of_rank
    if not problems and base is not None and base.layout is not None:
        problems += checks.layout_problems(adapter, base.layout.modules, base.name, work.label)
        if target.kind == "gguf":
            from adapterctl.serving.llama_cpp import gguf_problems

            problems += gguf_problems(adapter, base.layout, work.label)
    if problems:
        count = f"{len(problems)} reason{'s' if len(problems) > 1 else ''}"
        raise AdapterError(f"{work.label} cannot be exported for {target.title}: {count}", problems=problems)
    return most if fits else None


def _details(work: Work, folder: Path, energy_kept: float | None) -> dict[str, Any]:
    """Return what a card says of the adapter in a folder."""
    from adapterctl.serving import checks
    from adapterctl.serving.card import servers_of

    adapter = _opened(folder)
    return {
        "rank": checks.rank_of(adapter),
        "modules": checks.kinds_of(adapter),
        "energy_kept": energy_kept,
        "servers": servers_of(adapter, work.label),
    }


def _put(work: Work, shelf: Shelf, files: Path, card: dict[str, Any], name: str) -> Made:
    # Somebody else may have put it there meanwhile, and have told a server of it.
    held = shelf.held(name, card)
    if held is None:
        shelf.put(name, files, card)
        held = shelf.held(name, card)
    if held is None:
        raise AdapterError(
            f"{shelf.root / name} is not what was written there",
            hint="check the disk, and that nothing else writes there; then run the same command again",
        )
    return Made(shelf, name, held, False)


def _fitted(work: Work, shelf: Shelf, source: Path, head: dict[str, Any], plain: str, rank: int) -> Made:
    """Truncate a release to a rank: the best approximation of every module's ΔW (Eckart and Young 1936)."""
    from adapterctl.workflows.export_fit import truncate

    name = f"{plain}-r{rank}"
    head = {**head, "model": f"{head['model']}-r{rank}", "fitted_rank": rank}
    card = shelf.held(name, head)
    made = Made(shelf, name, card, True) if card is not None else None
    if made is None:
        with shelf.bench() as bench:
            report = truncate(work.session, source, rank, bench / "fitted")
            details = _details(work, bench / "fitted", report.energy_kept)
            made = _put(work, shelf, bench / "fitted", {**head, **details}, name)
    work.notes.append(
        f"truncated to rank {rank}, which keeps {made.card['energy_kept']:.2%} of ΔW's energy: "
        "the gate has not measured this adapter"
    )
    return made


def _converted(work: Work, base: ServingBase, shelf: Shelf, source: Path, head: dict[str, Any], name: str) -> Made:
    """Write a release as a GGUF file or as a whole model."""
    from adapterctl.serving import checks

    adapter = _opened(source)
    details = {"rank": checks.rank_of(adapter), "modules": checks.kinds_of(adapter), "energy_kept": None}
    with shelf.bench() as bench:
        if work.target.kind == "gguf":
            from adapterctl.serving.llama_cpp import write_gguf

            assert base.layout is not None
            out = bench / "gguf"
            out.mkdir()
            with work.session.reporter.stage("write the adapter for llama.cpp"):
                texts = {
                    "general.name": str(head["model"]),
                    "general.version": str(head["version"]),
                    "adapterctl.content_hash": str(head["content_hash"]),
                    "adapterctl.base": work.release.base,
                }
                write_gguf(adapter, base.layout, out, texts)
        else:
            from adapterctl.workflows.export_fit import fold_in

            out = bench / "model"
            fold_in(work.session, source, base.folder, out)
        return _put(work, shelf, out, {**head, **details}, name)
