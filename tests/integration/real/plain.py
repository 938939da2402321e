"""Load a champion with MLflow, PEFT and transformers alone; adapterctl cannot be imported here.

Arguments: tracking URI, registered model, base model's folder, JSON file with prompts and labels, file to write.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.modules["adapterctl"] = None  # type: ignore[assignment]
try:
    import adapterctl  # noqa: F401
except ImportError:
    pass
else:
    raise SystemExit("adapterctl can be imported")

import mlflow  # noqa: E402
import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

uri, name, base, asked_file, out = sys.argv[1:]
asked = json.loads(Path(asked_file).read_text(encoding="utf-8"))
mlflow.set_tracking_uri(uri)
with tempfile.TemporaryDirectory() as place:
    folder = mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=place)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder).eval()
tokenizer = AutoTokenizer.from_pretrained(base)
labels = {label: tokenizer(label, add_special_tokens=False)["input_ids"] for label in asked["labels"]}
answers = []
with torch.inference_mode():
    for prompt in asked["prompts"]:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0
        )
        values = {}
        for label, tokens in labels.items():
            whole = torch.cat([ids, torch.tensor([tokens])], dim=1)
            logs = model(input_ids=whole).logits[0].log_softmax(-1)
            first = ids.shape[1] - 1
            values[label] = sum(float(logs[first + i, token]) for i, token in enumerate(tokens))
        text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        answers.append({"text": text, "log_likelihoods": values})
foreign = [module for module in sys.modules if module.split(".")[0] == "adapterctl" and sys.modules[module]]
Path(out).write_text(json.dumps({"answers": answers, "foreign": foreign}), encoding="utf-8")
