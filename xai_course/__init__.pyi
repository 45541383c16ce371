from . import checks as checks
from . import colab as colab
from . import data as data
from . import maps as maps
from . import measure as measure
from . import methods as methods
from . import nets as nets
from . import preset as preset
from . import runs as runs
from . import show as show
from . import train as train
from .colab import profile as profile
from .colab import setup as setup
from .maps import class_activation_map as class_activation_map
from .maps import grad_cam as grad_cam
from .methods.amc import AmcLoss as AmcLoss
from .methods.base import CrossEntropy as CrossEntropy
from .methods.base import Method as Method
from .methods.hnc import HNC as HNC
from .methods.loss_attention import LossAttention as LossAttention
from .methods.minmax import MinMax as MinMax
from .methods.reff import ReFF as ReFF
from .preset import Preset as Preset
from .train import fit as fit

__version__: str
