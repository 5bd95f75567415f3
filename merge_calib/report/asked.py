"""How models were asked, in a line of report.md."""

from collections.abc import Mapping
from typing import Any

from merge_calib.report.text import code, count_text

_CHAT = {
    "none": "no chat template",
    "aligned": "the chat template for every model but the base",
    "both": "the chat template for every model",
}


def is_imported(plan: Mapping[str, Any]) -> bool:
    """Whether the scores were read from files that something else wrote, so that no model ran here."""
    return bool(plan.get("identity", {}).get("source", "models") != "models")


def asked_line(identity: Mapping[str, Any]) -> str:
    """Worked examples, chat template and system message, and whether texts begin with a finish prompt."""
    shots = identity.get("num_fewshot", 0)
    chat = identity.get("apply_chat_template", "none")
    system = identity.get("system_instruction")
    parts = [f"{count_text(shots, 'worked example')} before each question" if shots else "no worked examples"]
    parts.append(_CHAT[chat])
    if chat != "none":
        heard = f"the system message {code(' '.join(system.split()))}" if system else "no system message"
        parts.append(f"there {heard}")
    if identity.get("finish_prompts"):
        parts.append("next-token texts begun with a finish prompt")
    return f"- asked with {', '.join(parts)}"
