"""The processes of params.yaml and their students, by name."""

from pathlib import Path

from pipeline.config import load_params

SETTINGS = load_params(Path(__file__).resolve().parents[1] / "params.yaml").laboratory.settings
PROCESSES = {name: setting.process for name, setting in SETTINGS.items()}
STUDENT_OF = {name: setting.student for name, setting in SETTINGS.items()}
