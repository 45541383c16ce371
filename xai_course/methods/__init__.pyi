# The room's public names, paper by paper; the package reads them from here, and loads a file when a name is used.
# isort: off

# What all share
from .base import Criterion as Criterion
from .base import CrossEntropy as CrossEntropy
from .base import FunctionCriterion as FunctionCriterion
from .base import Method as Method
from .base import check_labels as check_labels
from .base import classification_loss as classification_loss
from .base import full_precision as full_precision
from .base import predict as predict
from .base import reduced as reduced
from .base import wide as wide

# AMC-Loss (Choi, Som and Turaga 2020)
from .pairs import PairMethod as PairMethod
from .pairs import contrastive as contrastive
from .pairs import pair_classes as pair_classes
from .pairs import pair_up as pair_up
from .pairs import reduced_pairs as reduced_pairs
from .pairs import upper_triangle as upper_triangle
from .amc import AmcLoss as AmcLoss
from .amc import AngularMarginContrastive as AngularMarginContrastive
from .amc import EuclideanContrastive as EuclideanContrastive
from .amc import EuclideanMarginContrastive as EuclideanMarginContrastive
from .amc import amc_pair_loss as amc_pair_loss
from .amc import angle as angle
from .amc import angular_margin_contrastive as angular_margin_contrastive
from .amc import euclidean_contrastive as euclidean_contrastive
from .amc import euclidean_pair_loss as euclidean_pair_loss
from .amc import unit_rows as unit_rows

# HNC loss (Sun et al. 2020)
from .negatives import chunk_size as chunk_size
from .negatives import gathered_maps as gathered_maps
from .negatives import route as route
from .negatives import topk_negatives as topk_negatives
from .hnc import HNC as HNC
from .hnc import HomogeneousNegativeMaps as HomogeneousNegativeMaps
from .hnc import WeightedSigmoidCrossEntropy as WeightedSigmoidCrossEntropy
from .hnc import check_gap_linear as check_gap_linear
from .hnc import hnc_kd as hnc_kd
from .hnc import hnc_mse as hnc_mse
from .hnc import homogeneous_negative_maps as homogeneous_negative_maps
from .hnc import mean_square as mean_square
from .hnc import reduce_classes as reduce_classes
from .hnc import spatial_variance as spatial_variance
from .hnc import squared_logit as squared_logit
from .hnc import uniform_divergence as uniform_divergence
from .hnc import weighted_sigmoid_cross_entropy as weighted_sigmoid_cross_entropy

# What HNC is compared with
from .classic import AnchorLoss as AnchorLoss
from .classic import AngularMargin as AngularMargin
from .classic import AttentionConsistency as AttentionConsistency
from .classic import Center as Center
from .classic import ConfidencePenalty as ConfidencePenalty
from .classic import FocalLoss as FocalLoss
from .classic import LargeMarginGaussian as LargeMarginGaussian
from .classic import LogitLoss as LogitLoss
from .classic import NegativeEntropy as NegativeEntropy
from .classic import SigmoidFocalLoss as SigmoidFocalLoss
from .classic import anchor_loss as anchor_loss
from .classic import class_balanced_weights as class_balanced_weights
from .classic import focal_loss as focal_loss
from .classic import negative_entropy as negative_entropy
from .classic import sigmoid_focal_loss as sigmoid_focal_loss
from .centers import CenterLoss as CenterLoss
from .centers import LargeMarginGaussianLoss as LargeMarginGaussianLoss
from .centers import center_loss as center_loss
from .centers import gaussian_logits as gaussian_logits
from .centers import move_centers as move_centers
from .consistency import AttentionConsistencyLoss as AttentionConsistencyLoss
from .consistency import attention_consistency as attention_consistency

# Loss-Attention (Shi et al. 2021)
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

# Min-Max entropy (Belharbi et al. 2019)
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

# The family of explanation losses (Ross et al. 2017, Rao et al. 2023, ReFF and others)
from .explanation_loss import ExplanationLoss as ExplanationLoss
from .explanation_loss import Focus as Focus
from .explanation_loss import check_masks as check_masks
from .explanation_loss import check_weights as check_weights
from .explanation_loss import normalised_shares as normalised_shares
from .explanation_loss import peak_maps as peak_maps
from .explanation_loss import squared_strides as squared_strides
from .guidance import AttentionDistance as AttentionDistance
from .guidance import Energy as Energy
from .guidance import L1 as L1
from .guidance import MatchingL1 as MatchingL1
from .guidance import MatchingL2 as MatchingL2
from .guidance import PPCE as PPCE
from .guidance import RRR as RRR
from .guidance import RelevantFocus as RelevantFocus
from .guidance import as_criterion as as_criterion
from .guidance import right_reasons as right_reasons
from .check import ExplanationLossReport as ExplanationLossReport
from .check import check_explanation_loss as check_explanation_loss

# Rivals of a penalty: with masks, and with groups instead
from .shortcuts import CDEP as CDEP
from .shortcuts import MaskedInput as MaskedInput
from .shortcuts import Pasted as Pasted
from .shortcuts import PastedOften as PastedOften
from .shortcuts import RightReasons as RightReasons
from .shortcuts import decomposed as decomposed
from .shortcuts import masked_input as masked_input
from .shortcuts import pasted as pasted
from .groups import DFR as DFR
from .groups import GroupDRO as GroupDRO
from .groups import JTT as JTT
from .groups import Reweighted as Reweighted
from .groups import group_of as group_of
from .groups import weighted_loss as weighted_loss

# ReFF (Adachi and Yamaguchi 2022)
from .reff import ReFF as ReFF
from .reff import focusing_loss as focusing_loss
from .reff import own_masks as own_masks
from .pseudo_annotator import Annotated as Annotated
from .pseudo_annotator import MixedAnnotations as MixedAnnotations
from .pseudo_annotator import Pix2Pix as Pix2Pix
from .pseudo_annotator import PseudoAnnotator as PseudoAnnotator
from .pseudo_annotator import annotator_for as annotator_for
from .pseudo_annotator import choose_annotated as choose_annotated
from .pseudo_annotator import draw_all as draw_all
from .pseudo_annotator import draw_pairs as draw_pairs
from .pseudo_annotator import gan_loss as gan_loss
from .pseudo_annotator import resize as resize
from .pseudo_annotator import step as step
from .pseudo_annotator import train_annotator as train_annotator
from .pseudo_annotator import with_pseudo_annotations as with_pseudo_annotations
from .abn import ABN as ABN

# Two at once
from .combined import Combined as Combined
from .combined import Decision as Decision
from .combined import Focused as Focused
from .combined import strengthened as strengthened
