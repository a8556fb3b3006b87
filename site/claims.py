"""The sentences of the four abstracts in our words, and the checks and figures that speak to each: data for claims.md.

A check is named as in figures/paper/checks.csv, with the number of its notebook in front: "02: all four phases".
`python site/claims_page.py` writes docs/claims.md from these records and that table, and names what it cannot find.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One assertion of a sentence.

    checks   those that must hold if it is true: all -> reproduced, some -> in part, none -> not reproduced
    why      without checks: why it is not testable here (required then, and only then)
    """

    text: str
    checks: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Claim:
    """A sentence of an abstract, paraphrased.

    figures  saved in figures/paper
    ours     the size of our runs, with {name} for a parameter that the first figure was run with
    theirs   what docs/reference knows of the paper's size; "" if it states nothing
    """

    text: str
    parts: tuple[Part, ...]
    figures: tuple[str, ...] = ()
    ours: str = ""
    theirs: str = ""


# Notebooks that have changed since their last run at full size; their checks are those of the present version.
PENDING = ()
KINDS = ("MLP", "LeNet-like", "residual")
FRAMING = "motivation: it asserts nothing that a measurement could contradict"
NIN_SIZE = (
    "Fashion-MNIST, ReLU network with three hidden layers, cross-entropy, plain SGD to 100 % training "
    "accuracy; widths, learning rates, batch sizes and noise scales not known"
)
SIMPLE = "one hidden layer, trained by SGD; width, learning rate and encoding not known"
LAYERS = "MLP-7, VGG-11, ResNet-20 on MNIST and CIFAR-10, BERT on SST-2; MNIST: 10 patches of 3 x 3, 100 images"
IMAGES = "{dataset}, {images} images of {patches} patches, {seeds} seeds, networks with up to {channels} channels"
SCALE_SIZE = "length 128, scale 32, 1000 channels"

# fmt: off
NODES = (
    Claim(
        "How a deep network learns can be probed by perturbing it with nodes that inject noise.",
        (Part("a proposal", why=FRAMING),),
    ),
    Claim(
        "Nodes that inject uncorrelated noise through trainable weights of their own can be added to a feed-forward "
        "network while its optimiser stays as it is.",
        (Part("the construction", why="a definition; that the network is unchanged without noise is a unit test"),),
    ),
    Claim(
        "Training falls into distinct phases, and the strength of the injected noise decides which.",
        (
            Part("there are four phases", ("02: all four phases",)),
            Part(
                "the noise scale decides (here: by the one-step control number, known before training)",
                (
                    "02: onset of the catapult, |log2 sigma / predicted|",
                    "02: phase diagram as predicted",
                    "02: spikes at kappa_1 <= 1.5",
                    "02: spikes at kappa_1 >= 3",
                    "02: factor in kappa_1 of 80 % of onsets",),),
            Part("fixed noise acts as re-drawn noise", ("02: fixed noise as re-drawn",)),),
        ("02c_phase_diagram", "02a_trajectories", "02f_collapse"),
        "{dataset}, three hidden layers of {width}, {seeds} seeds, {steps} steps",
        NIN_SIZE,
    ),
    Claim(
        "Equations for the dynamics of the noise weights are derived: the local curvature of the loss sets their rate.",
        (
            Part(
                "one mode at fixed curvature decays at that rate",
                ("02: slope of one mode, softplus", "02: tau of one mode over its prediction, softplus"),),
            Part("so do the noise weights of a network in training, with the floor of their random walk",
                 ("03: rate on curvature: exponent", "03: rate on curvature: offsets between interventions",
                  "03: clock, decay: largest |ln| over time", "03: clock, catapult: largest |ln| over time",
                  "03: clock, divergent: largest |ln| over time")),
            Part("at large noise the loss decides where training diverges (ours and the catapult paper's)",
                 ("02: slope of divergence, MSE", "02: slope of divergence, cross-entropy",
                  "02: kappa_H at divergence, MSE")),),
        ("02d_one_mode", "02b_decay_times"),
        "{dataset}, three hidden layers of {width}, {seeds} seeds",
        NIN_SIZE,
    ),
    Claim(
        "A linear model serves as the test case of these equations.",
        (
            Part("training is a closed map of few numbers",
                 ("01: SGD equals the closed map, relative", "01: n(t+1)/n(t) = 1 - kappa at N = 1e5")),
            Part("the decay time follows the control number",
                 ("01: slope of ln tau against ln sigma", "01: kappa of the fastest decay",
                  "01: tau of SGD, relative deviation, kappa_0 < 1.8")),
            Part("the phases begin at control numbers 2 and 4",
                 ("01: kappa_0 = 1.95: largest |n| / |n_0|", "01: kappa_0 = 2.05: largest |n| / |n_0|",
                  "01: kappa_0 = 3.95: fraction that converges", "01: kappa_0 = 4.05: fraction that converges")),
            Part("noise makes the weights walk, and sets where they settle",
                 ("01: random walk, largest relative deviation", "01: stationary Var(n), |B| = 1",
                  "01: stationary Var(n), |B| = 128")),),
        ("01a_noise_output", "01b_decay_time", "01c_end_points"),
        "width {width}, {seeds} seeds; the map at widths up to 1e6",
    ),
    Claim(
        "In some cases the noise nodes evolve as the loss of the unperturbed network does.",
        (
            Part("in the linear network, for noise as strong as the input",
                 ("01: sigma = sigma_x: ratio of log-decays",)),
            Part("the same along training, and with the predicted ratio for other noise",
                 ("03: linear net, sigma = sigma_x: ratio of decays",
                  "03: linear net, 2 sigma_x: ratio over prediction, off by")),
            Part("in a ReLU classifier, beyond what any falling curve shows",
                 ("03: re-drawn noise: the loss beats -sqrt t at all noise scales",
                  "03: re-drawn noise: the loss beats another seed's at all noise scales")),),
        ("03b_nulls", "03a_evolution", "03d_linear_equality"),
        "{dataset}, three hidden layers of {width}",
        NIN_SIZE,
    ),
    Claim(
        "Nodes may therefore tell more about the whole system.",
        (Part("an outlook", why="a proposal without a number; notebooks 04 and 11 try two uses, curvature and "
              "memorisation"),),
    ),
)

RESPONSE = (
    Claim(
        "A deep network is a powerful model of how the outputs of a data set depend on its inputs.",
        (Part("a point of view", why=FRAMING),),
    ),
    Claim(
        "A deep network is an adaptive system of many neurons whose training is a feedback loop through the loss.",
        (Part("a point of view", why=FRAMING),),
    ),
    Claim(
        "The response to a training step is constant in some ideal cases and ages like a power of time in others.",
        (
            Part(
                "a constant kernel: the loss alone sets the power",
                ("08: constant kernel, ce: slope of logit", "08: constant kernel, ce: slope of p",
                 "08: constant kernel, sigmoid_mse: slope of logit", "08: constant kernel, sigmoid_mse: slope of p",
                 "08: constant kernel, mse: rate"),),
            Part(
                "a trained network ages like a power, the exponent is universal, the prefactor that of its kernel",
                (*(f"08: aging, {loss}, {units} units: {end} slope" for loss in ("CE", "sigmoid + MSE")
                   for units in ("other", "sigmoid") for end in ("steepest", "flattest")),
                 "08: aging: smallest R^2",
                 *(f"08: one string, {loss}: (prefactor - 1) / a" for loss in ("CE", "sigmoid + MSE"))),),
            Part("meanwhile its kernel hardly drifts",
                 ("08: bare kernel: smallest slope", "08: bare kernel: largest slope",
                  "08: drift at H >= 2048, NTK scaling")),),
        ("08b_aging", "08a_constant_kernel"),
        "one hidden layer, {seeds} seeds, {steps} steps",
        SIMPLE,
    ),
    Claim("These findings do not reach complex phenomena such as fragility.", (Part("a gap", why=FRAMING),)),
    Claim(
        "A very simple network is introduced and analysed.",
        (
            Part("one step is linear in the learning rate",
                 ("08: one step, tanh: nonlinearity ~ eta^", "08: one step, sigmoid: nonlinearity ~ eta^",
                  "08: linear response against -eta Theta l'")),
            Part("its kernel is a sum of known factors", ("08: factors (4) against autograd",)),),
        ("08c_factors",), "one hidden layer, {seeds} seeds", SIMPLE,
    ),
    Claim(
        "The response consists of factors that depend on the stage of training, the activation and the method.",
        (
            Part("stage: the hidden weights take over", ("08: output-weight share, end / start, largest",)),
            Part("activation", why="figure 08c shows the factors of four activations; no check compares them"),
            Part("method: the first response of momentum and Adam",
                 ("08: momentum: summed response / first", "08: Adam: first response / (lr |grad f|_1)")),
            Part("method: Adam does not age as SGD does", ("08: Adam's slope above SGD's",)),),
        ("08c_factors", "08d_methods"), "one hidden layer, {seeds} seeds, {method_steps} steps", SIMPLE,
    ),
    Claim(
        "Stochastic training reduces the space of features, and this can make the network fragile.",
        (
            Part("it anneals the response", ("08: label noise: off a function of eta^2 sigma^2 t",)),
            Part("its features lose rank against deterministic training",
                 (*(f"08: {units}: effective rank, label noise / GD" for units in ("tanh", "relu")),
                  *(f"08: {units}: effective rank surely falls, GD to label noise" for units in ("tanh", "relu")))),
            Part("the reduced network is fragile",
                 ("08: tanh: share of flips by noise surely rises, GD to label noise",
                  *(f"08: {units}: error without the worst neuron surely rises, GD to label noise"
                    for units in ("tanh", "relu")))),),
        ("08g_contrast", "08f_stochastic", "08h_fragility"),
        "one hidden layer, {contrast_seeds} seeds, {contrast_steps} steps",
        "not known, nor are the paper's measures of reduction and fragility: ours are defined in the reference",
    ),
    Claim("Complex phenomena of deep networks are discussed.", (Part("a discussion", why=FRAMING),)),
)

INTERACTIONS = (
    Claim(
        "Through its layers a network gradually takes up knowledge and forgets noisy features.",
        (
            Part("completeness rises with depth, by more than the error of the readout",
                 (*(f"09: {kind}: completeness rises with depth (last over first)" for kind in KINDS),
                  *(f"09: {kind}: completeness rises with depth, effect over the floor" for kind in KINDS))),
            Part("redundancy rises at first and falls in the end, by more than the error of the readout",
                 (*(f"09: {kind}: redundancy rises at first (middle over first)" for kind in KINDS),
                  *(f"09: {kind}: redundancy rises at first, effect over the floor" for kind in KINDS),
                  *(f"09: {kind}: redundancy falls in the end (last over middle)" for kind in KINDS),
                  *(f"09: {kind}: redundancy falls in the end, effect over the floor" for kind in KINDS))),),
        ("09d_with_depth", "09c_changes"), IMAGES, LAYERS,
    ),
    Claim(
        "Earlier work established interactions as the primitive patterns that a network encodes.",
        (
            Part("they reproduce the output on every masked input",
                 ("09: universal matching, any gamma: largest error", "09: efficiency, any split: largest error")),
            Part("they find planted patterns",
                 ("09: planted: IoU at the output", "09: planted: IoU of the last hidden layer, by the head",
                  "09: planted: largest error of an interaction")),),
        ("09a_planted",), "planted AND and OR tasks; identities on random games", LAYERS,
    ),
    Claim(
        "The definition is extended to intermediate layers; what emerges and what is forgotten there is counted.",
        (
            Part("the accounts of a layer close", ("09: all - (overlap + forget), as a fraction",)),
            Part("without a readout: a residual network's blocks add up to its output",
                 ("09: ledger: stem and blocks off the output",)),),
        ("09c_changes", "09f_ledger"), IMAGES, LAYERS,
    ),
    Claim(
        "The change by layer shows how the power to generalise and the instability of features change.",
        (
            Part("generalisation by layer",
                 (*(f"09: {kind}: IoU of seeds rises with depth (last over first)" for kind in KINDS),
                  *(f"09: {kind}: layers of lower order generalise better (lowest over highest)" for kind in KINDS))),
            Part("instability by layer",
                 (*(f"09: {kind}: stability rises with depth (last over first)" for kind in KINDS),
                  *(f"09: {kind}: layers of lower order are more stable (lowest over highest)" for kind in KINDS))),),
        ("09j_by_layer", "09e_by_order"), IMAGES, LAYERS,
    ),
)

STABILITY = (
    Claim(
        "Deep networks may learn in high dimensions by discarding what is irrelevant to the task.",
        (Part("a hypothesis", why=FRAMING),),
    ),
    Claim(
        "After training, and not before, deeper layers are less and less sensitive to smooth deformations.",
        (
            Part("less and less up to the last hidden layer, in all networks",
                 ("06: D falls with depth up to the last hidden layer, trained: networks",
                  "06: D falls up to the last hidden layer, nine convolutions (upper end)")),
            Part("up to the output, where it has collapsed on the label",
                 ("06: D falls with depth up to the output, trained: networks",
                  "06: training lowers D of the output: networks")),),
        ("06b_sensitivities",), "{dataset}, {n_train} training images, {channels} channels, {seeds} seeds",
    ),
    Claim(
        "This loss of sensitivity goes with performance.",
        (
            Part("with the size of the training set", ("06: R of the output falls with the training set: networks",)),
            Part("across architectures", why="needs many good networks on natural images; our small ones on small "
                 "images show no such correlation (section 5 of the reference), which does not decide it"),),
        ("06e_size_and_noise",), "{dataset}, {n_train} training images, {channels} channels, {seeds} seeds",
    ),
    Claim(
        "It also goes with a gain of sensitivity to white noise during training.",
        (
            Part("a gain at fixed layer, in all networks",
                 ("06: training raises G of the first layer: networks",
                  "06: training raises G of the last hidden layer: networks")),
            Part("in the deepest network, by more than D",
                 ("06: training raises G of the first layer, nine convolutions (lower end)",
                  "06: training raises G of the first layer more than D, nine convolutions (lower end)")),),
        ("06b_sensitivities",), "{dataset}, {n_train} training images, {channels} channels, {seeds} seeds",
    ),
    Claim(
        "Both facts remain when white noise is added to the training images.",
        (Part("the same verdicts with noise as large as the deformation",
              ("06: noise in training, 1 x the deformation: claims that still hold, share",)),),
        ("06e_size_and_noise",), "{dataset}, {n_train} training images, {seeds} seeds",
    ),
    Claim(
        "Stability to deformations comes from pooling in space and across channels.",
        (
            Part("channels: shuffling them undoes it",
                 ("06: channel pooling, shuffling raises D of the output: networks",
                  "06: shuffled channels raise D of the output, nine convolutions (lower end)")),
            Part("space: filters become homogeneous",
                 ("06: spatial pooling, filters become homogeneous: networks",)),),
        ("06d_shuffled", "06c_spectra"), "{dataset}, {n_train} training images, {channels} channels, {seeds} seeds",
    ),
    Claim(
        "A model task, detecting a scale, shows the same spatial pooling.",
        (
            Part("it is learned", ("07: task 2: test error",)),
            Part("filters become homogeneous up to the scale and not beyond",
                 ("07: task 2: share of mode 0 up to the scale", "07: task 2: share of mode 0 beyond")),
            Part("sensitivities of the trained network follow homogeneous filters",
                 ("07: task 2: D of trained networks off constant filters",
                  "07: task 2: G of trained networks off constant filters",
                  "07: task 2: excess of D, layer log2(xi) - 1 over layer log2(xi)")),),
        ("07c_trained", "07d_homogeneous_filters"), "length {length}, scale {xi}, {channels} channels, {seeds} seeds",
        SCALE_SIZE,
    ),
    Claim(
        "How both sensitivities scale with depth is computed, and strides change the scaling.",
        (
            Part("without strides",
                 ("07: stride 1: D off its closed form", "07: stride 1, ReLU: G off its closed form",
                  "07: slope of G, 10 to 40 layers, simulated, noise rectified at the first",
                  "07: slope of R, 10 to 40 layers, simulated, noise rectified at the first")),
            Part("with strides",
                 ("07: stride F: D off its closed form", "07: stride F, ReLU: G off its closed form")),),
        ("07a_constant_filters",), "constant filters, no training", SCALE_SIZE,
    ),
    Claim(
        "Noise gains because, once ReLUs have rectified it, it adds up in pooling.",
        (
            Part("it grows with ReLU", ("07: ReLU: growth of G in 6 layers / closed form",)),
            Part("and without rectification it does not",
                 ("07: linear: G off a constant", "07: tanh, small pixels: growth of G / linear net")),),
        ("07b_activations",), "constant filters, no training", SCALE_SIZE,
    ),
)

# fmt: on
PAPERS = {
    ("2210.13599", "Noise injection as a probe of deep learning dynamics"): NODES,
    ("2405.04074", "A simple theory for training response of deep neural networks"): RESPONSE,
    ("2409.08712", "Layerwise change of knowledge in neural networks"): INTERACTIONS,
    ("2210.01506", "How deep convolutional neural networks lose spatial information with training"): STABILITY,
}
