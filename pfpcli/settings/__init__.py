"""Settings: everything that a command can be told, with its defaults and its limits.

In: values from the command line or from a Python call. Out: one frozen dataclass per command, whose values are checked.
The record of a run stores the same values. This package may import the tables of `scoring`, `planning` and `recovery`
that name their methods; none of these imports torch.

network            what to load, and which channels may be cut
calibration        calibration images and the machine
scoring            how channels are scored; `pfp score`
compress           `pfp compress`
sweep              `pfp sweep`
compare_criteria   `pfp compare-criteria`
certify            `pfp certify`
sparsify           `pfp sparsify`
finetune           `pfp finetune`
max_drop           how far a quality may fall
verify             `pfp verify`
text               values as they are typed
python             values as they are written in Python
checks             limits that several commands share
"""

from pfpcli.settings.calibration import CalibrationSettings
from pfpcli.settings.certify import CertifySettings
from pfpcli.settings.compare_criteria import CompareCriteriaSettings
from pfpcli.settings.compress import CompressSettings
from pfpcli.settings.finetune import FinetuneSettings
from pfpcli.settings.network import InMemoryModel, NetworkSettings
from pfpcli.settings.scoring import ScoreSettings, ScoringSettings
from pfpcli.settings.sparsify import SparsifySettings
from pfpcli.settings.sweep import SweepSettings
from pfpcli.settings.verify import VerifySettings

__all__ = [
    "CalibrationSettings",
    "CertifySettings",
    "CompareCriteriaSettings",
    "CompressSettings",
    "FinetuneSettings",
    "InMemoryModel",
    "NetworkSettings",
    "ScoreSettings",
    "ScoringSettings",
    "SparsifySettings",
    "SweepSettings",
    "VerifySettings",
]
