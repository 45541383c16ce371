# The room's public names, paper by paper; the package reads them from here, and loads a file when a name is used.
# isort: off

# Loss-Attention
from .loss_attention import Attended as Attended
from .loss_attention import LossBasedAttention as LossBasedAttention
from .loss_attention import attended_logits as attended_logits
from .loss_attention import binary_cross_entropy_bound as binary_cross_entropy_bound
from .loss_attention import capsule_attention as capsule_attention
from .loss_attention import cross_entropy_bound as cross_entropy_bound
from .loss_attention import cut_off as cut_off
from .loss_attention import image_loss as image_loss
from .loss_attention import patch_lengths as patch_lengths
from .loss_attention import patch_loss as patch_loss
from .loss_attention import patch_shares as patch_shares
from .patch_heads import AttentionPooling as AttentionPooling
from .patch_heads import AttentionScores as AttentionScores
from .patch_heads import DynamicRouting as DynamicRouting
from .patch_heads import LossAttention as LossAttention
from .patch_heads import MeanPooling as MeanPooling
from .patch_heads import PatchMethod as PatchMethod
from .patch_heads import Separate as Separate
from .patch_heads import dynamic_routing as dynamic_routing
from .patch_heads import margin_loss as margin_loss
from .patch_heads import squash as squash

# Min-Max entropy
from .minmax import MaskRule as MaskRule
from .minmax import MinMax as MinMax
from .minmax import MinMaxEntropy as MinMaxEntropy
from .minmax import combined_map as combined_map
from .minmax import decided_loss as decided_loss
from .minmax import rescaled as rescaled
from .minmax import scaled as scaled
from .minmax import split_image as split_image
from .minmax import undecided_loss as undecided_loss
from .minmax import uniform_target as uniform_target
from .minmax import upsample as upsample
from .erasing import Erasing as Erasing
from .erasing import Step as Step
from .erasing import decay as decay
from .erasing import erase as erase
from .erasing import sample_trust as sample_trust
from .wsol import FullSupervision as FullSupervision
from .wsol import PooledMaps as PooledMaps
from .wsol import TrivialMask as TrivialMask
