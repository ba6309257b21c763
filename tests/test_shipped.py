"""What ships in models/ runs: every artifact is admitted for the robot it names, by the checks a robot makes."""

from robot.artifacts import DEFAULT_MODELS_DIR, known_artifacts
from robot.description import load
from robot.onboard.admission import admit
from robot.onboard.artifact import load as load_artifact


def test_every_shipped_artifact_is_admitted_for_its_robot():
    shipped = [
        DEFAULT_MODELS_DIR / name / v
        for name, versions in known_artifacts(DEFAULT_MODELS_DIR).items()
        for v in versions
    ]
    assert shipped
    for folder in shipped:
        artifact = load_artifact(folder)
        assert admit(artifact, load(artifact.contract.robot)).interface.contract == artifact.contract
        assert "success" in (folder / "card.md").read_text()
