"""What can be wrong with a VAE and its loss: the faults' names, and what to do about each."""

from typing import NamedTuple

from vae_lesson.words import N_, _

DRAW_Z = N_("Draw z = mu + exp(½ log_var)·eps.")
CURES = {  # of the loss first, then of the model
    (WRONG_SIGN := N_("wrong sign of the KL")): N_(
        "Add the KL: −½ sum(1 + log_var − mu² − exp(log_var))."
    ),
    (MEAN_FOR_SUM := N_("mean for sum")): N_(
        "Sum over pixels and latent dimensions, then take the same mean over images of both."
    ),
    (KL_FORMULA := N_("KL formula")): N_(
        "Compare it with ½ (mu² + exp(log_var) − 1 − log_var), and its σ with that of the noise."
    ),
    (OTHER_CODE := N_("KL of another code")): N_("Return the mu and log_var that z is drawn from."),
    (KL_WITHOUT_GRADIENT := N_("KL without gradient")): N_(
        "Leave .item(), .detach() and no_grad out."
    ),
    (SWAPPED := N_("swapped arguments")): N_("First the output: binary_cross_entropy(output, x)."),
    (WRONG_TARGET := N_("wrong target")): N_(
        "Compare each output with the image that it was made from."
    ),
    (BROADCAST := N_("shapes broadcast")): N_(
        "Give both the same shape, x.reshape(output.shape), say: (B, n) beside (B, 1, n) makes "
        "(B, B, n)."
    ),
    (LOG_FORGOTTEN := N_("log σ forgotten")): N_(
        "Add log σ of each pixel, or σ grows without end."
    ),
    (FAR_BETA := N_("beta far from 1")): N_(
        "If you mean it, keep it; else look for a mean or a weight that is too much."
    ),
    (BITS_TURNED := N_("free bits turned round")): N_(
        "Take clamp(min=…): what is *under* the limit is free."
    ),
    (WRONG_RANGE := N_("wrong range")): N_(
        "Bring the images to [0, 1], let the output be what the loss takes (logits or "
        "probabilities) and able to reach the images, and leave mu and log_var free."
    ),
    (SIGMOID_TWICE := N_("sigmoid twice")): N_(
        "Take one away: if the loss takes logits, decode's."
    ),
    (LOG_VAR_AS_SIGMA := N_("log_var used as sigma")): DRAW_Z,
    (VARIANCE_AS_SIGMA := N_("variance used as sigma")): DRAW_Z,
    (LOG_VAR_IGNORED := N_("log_var ignored")): DRAW_Z,
    (LOG_VAR_IS_MU := N_("log_var is mu")): N_("Give mu and log_var a layer each."),
    (NO_NOISE := N_("no noise")): N_(
        "Draw z = mu + exp(½ log_var)·eps, with fresh eps at every step."
    ),
    (NOT_STANDARD_NORMAL := N_("noise that is not N(0, I)")): N_(
        "Draw z = mu + exp(½ log_var)·eps, eps = randn_like(mu)."
    ),
    (GRADIENT_CUT := N_("gradient cut")): N_(
        "Leave detach, .data and no_grad out; rsample, not sample."
    ),
    (Z_UNUSED := N_("z unused")): N_("Let the decoder make the output of z."),
    (PAST_Z := N_("past z")): N_("Let the decoder see z alone."),
    (MIXED := N_("images mixed")): N_(
        "Look at reshape, transpose, roll and batch_first: the first dimension is the images'."
    ),
    (NOT_FINITE := N_("not finite")): N_(
        "Look at the images and the weights; the logarithm of 0 is infinite (take logits), and "
        "exp(log_var) overflows above 88 (in float16 above 11: take float32 or bfloat16); roots "
        "and quotients want 1e-8 inside."
    ),
    (LOSS_GROWS := N_("loss grows")): N_("Take a lower rate, or clip the gradient's norm."),
    (RUNS_AWAY := N_("runs away")): N_(
        "Bring the images to [0, 1] and the first weights near 0. If the loss falls all the same, "
        "it asks for this: see what inspect_vae says."
    ),
}
FAULTS = tuple(CURES)


class Finding(NamedTuple):
    """One thing that is wrong: its name (one of FAULTS), and what was measured."""

    fault: str
    evidence: str

    def __str__(self) -> str:
        said = {"fault": _(self.fault), "evidence": self.evidence, "cure": _(CURES[self.fault])}
        return _("{fault}. {evidence} {cure}").format(**said)


class Report(list):
    """What is wrong, a list of `Finding`; [] if nothing is.

    `examined` says what was looked at and is right, with what was measured; `not_examined` what
    was not looked at, and why. Each is a dict of strings: its keys, as the faults' names, are in
    English, what was measured is in the language of the lesson.
    """

    def __init__(self, *findings: Finding):
        super().__init__(findings)
        self.examined, self.not_examined = {}, {}

    def find(self, fault: str, evidence: str) -> None:
        self.append(Finding(fault, evidence))

    def right(self, what: str, measured: str) -> None:
        self.examined[what] = measured

    def skip(self, what: str, why: str) -> None:
        self.not_examined[what] = why

    def __str__(self) -> str:
        lines = [str(finding) for finding in self] or [_("Nothing found.")]
        for title, said in [
            (_("Right: {said}."), self.examined),
            (_("Not examined: {said}."), self.not_examined),
        ]:
            if said:
                one = _("{what} ({how})")
                said = [one.format(what=_(what), how=how) for what, how in said.items()]
                lines.append(title.format(said=_(", ").join(said)))
        return "\n".join(lines)

    __repr__ = __str__
