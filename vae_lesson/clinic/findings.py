"""What can be wrong with a VAE and its loss: the faults' names, and what to do about each."""

from typing import NamedTuple

CURES = {  # of the loss first, then of the model
    (WRONG_SIGN := "wrong sign of the KL"): "Add the KL to the reconstruction: KL = −½ sum(1 + "
    "log_var − mu² − exp(log_var)).",
    (MEAN_FOR_SUM := "mean for sum"): "Sum over pixels and over latent dimensions, then take the "
    "same mean over images of both.",
    (KL_FORMULA := "KL formula"): "Compare the KL term by term with ½ (mu² + exp(log_var) − 1 − "
    "log_var), and the σ in it with that of the noise.",
    (KL_WITHOUT_GRADIENT := "KL without gradient"): "Leave .item(), .detach() and no_grad out of "
    "the loss: a KL that is a mere number teaches the encoder nothing.",
    (SWAPPED := "swapped arguments"): "The output comes first, then the images: "
    "binary_cross_entropy(output, x).",
    (WRONG_TARGET := "wrong target"): "Compare each output with the image that it was made from.",
    (WRONG_RANGE := "wrong range"): "Bring the images to [0, 1], let the output be what the loss "
    "takes (logits or probabilities) and able to reach the images, and leave log_var free.",
    (SIGMOID_TWICE := "sigmoid twice"): "Take one of the two away: where the loss takes logits, "
    "let decode return them.",
    (LOG_VAR_AS_SIGMA := "log_var used as sigma"): "σ is exp(½ log_var): z = mu + exp(½ log_var)"
    "·eps.",
    (VARIANCE_AS_SIGMA := "variance used as sigma"): "σ is exp(½ log_var): z = mu + exp(½ log_var)"
    "·eps.",
    (LOG_VAR_IGNORED := "log_var ignored"): "Multiply the noise by σ: z = mu + exp(½ log_var)·eps.",
    (LOG_VAR_IS_MU := "log_var is mu"): "Give mu and log_var a layer each.",
    (NO_NOISE := "no noise"): "Draw z = mu + exp(½ log_var)·eps with fresh eps ~ N(0, I) at every "
    "step.",
    (NOT_STANDARD_NORMAL := "noise that is not N(0, I)"): "Draw eps = randn_like(mu) at every step "
    "(not rand), and set z = mu + exp(½ log_var)·eps.",
    (GRADIENT_CUT := "gradient cut"): "Draw z with rsample or mu + σ·eps, without detach, .data or "
    "no_grad between encoder and loss.",
    (Z_UNUSED := "z unused"): "Let the decoder make the output of z.",
    (PAST_Z := "past z"): "Let the decoder see z alone: what else it sees of x need not go through "
    "the code.",
    (NOT_FINITE := "not finite"): "Look at the images and the weights; the logarithm of a "
    "probability of 0 is infinite (compute from logits), and exp(log_var) overflows above 88.",
}
FAULTS = tuple(CURES)


class Finding(NamedTuple):
    """One thing that is wrong: its name (one of FAULTS), and what was measured."""

    fault: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.fault}. {self.evidence} {CURES[self.fault]}"
