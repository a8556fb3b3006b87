"""Figures of notebook 08: how the training response ages, its factors, and what training does to features."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nin.figures import PHASE_COLORS, panels
from studies.drawing import line_with_interval

LOSSES = {"mse": "MSE", "ce": "CE", "sigmoid_mse": "sigmoid + MSE"}
COLORS = {"tanh": "C0", "relu": "C1", "sigmoid": "C2", "leaky_relu": "C3"}
TRAININGS = {"GD": "--", "SGD": ":", "label noise": "-"}
STYLES = {"leaky_relu": "--"}  # its curves lie on those of ReLU
METHODS = {"sgd": "SGD", "momentum": "momentum", "adam": "Adam"}


def plain_ticks(axis: Axis) -> None:
    """Label 1, 2 and 5 of each decade of a logarithmic axis that spans less than two of them, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def constant_kernel(data: pd.DataFrame) -> Figure:
    """A constant kernel ages: response of the logit, of p, and error; data: loss, step, logit, p, error."""
    figure, axes = panels(1, 3, height=1.0, sharex=True)
    for ax, (quantity, label) in zip(
        axes[0], {"logit": "response of the logit", "p": "response of $p$", "error": "error $1-p$"}.items(), strict=True
    ):
        for number, (loss, rows) in enumerate(data.groupby("loss", sort=False)):
            ax.plot(rows["step"], rows[quantity], "o", color=f"C{number}", mfc="w", ms=3, label=LOSSES[loss])
            law = rows[f"{quantity}_law"]
            ax.plot(rows["step"], law, "-", color=f"C{number}", lw=0.8)
        ax.set(xscale="log", yscale="log", xlabel="step", title=label)
    axes[0, 0].legend(fontsize=6, title="lines: exponents", title_fontsize=6)
    return figure


def aging(data: pd.DataFrame, *, low: float, high: float) -> Figure:
    """Response (top) and kernel (bottom) against step, one column per loss; data: activation, loss, seed, step, ..."""
    losses = list(dict.fromkeys(data["loss"]))
    figure, axes = panels(2, len(losses), height=0.9, sharex=True, sharey="row")
    for column, loss in enumerate(losses):
        for row, quantity in enumerate(("response", "self_kernel")):
            ax = axes[row, column]
            for activation, rows in data[data["loss"] == loss].groupby("activation", sort=False):
                look = {"color": COLORS[activation], "ls": STYLES.get(activation), "lw": 1, "label": activation}
                line_with_interval(ax, rows["step"] + 1, rows[quantity], geometric=True, band=True, **look)
            ax.axvspan(low, high, color="0.5", alpha=0.1, lw=0)
        axes[0, column].set_title(LOSSES[loss])
        axes[1, column].set_xlabel("step + 1")
    axes[0, 0].set(xscale="log", yscale="log", ylabel=r"mean $|R(x_i|x_i)|$", ylim=(1e-8, 10))
    axes[1, 0].set(yscale="log", ylabel=r"mean $\Theta(x_i,x_i)$")
    plain_ticks(axes[1, 0].yaxis)
    axes[0, 0].legend(fontsize=6, loc="lower left")
    return figure


def factors(data: pd.DataFrame, *, distances: Sequence[dict] = ()) -> Figure:
    """Share of the output weights in the kernel against step, one panel per loss; and the kernel's profile.

    data: activation, loss, step, output_share; distances: records state, distance, value of the kernel's profile.
    """
    losses = list(dict.fromkeys(data["loss"]))
    figure, axes = panels(1, len(losses) + 1, height=1.3)
    for ax, loss in zip(axes[0], losses, strict=False):
        for activation, rows in data[data["loss"] == loss].groupby("activation", sort=False):
            mean = rows.groupby("step")["output_share"].mean()
            look = {"color": COLORS[activation], "ls": STYLES.get(activation), "lw": 1}
            ax.plot(mean.index + 1, mean, label=activation, **look)
        ax.set(xscale="log", xlabel="step + 1", title=LOSSES[loss], ylim=(0, 1))
    axes[0, 0].set_ylabel("output weights")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=6)
    ax = axes[0, -1]
    for number, (state, rows) in enumerate(pd.DataFrame(distances).groupby("state", sort=False)):
        mean = rows.groupby("distance")["value"].mean()
        ax.plot(mean.index, mean, "o-", color=f"C{4 + number}", mfc="w", ms=3, lw=0.8, label=state)
    ax.set(xlabel="Hamming d", title=r"$\Theta(d)/\Theta(0)$")
    ax.legend(fontsize=6)
    return figure


def prefactor(data: pd.DataFrame, *, ends: Sequence[dict]) -> Figure:
    """t R of one string against step beside t K / int K dt, one panel per loss; right: at the end, against a.

    data: activation, loss, seed, step, measured, law (`aging.prefactors`); ends: records activation, loss, a,
    prefactor.
    """
    losses = list(dict.fromkeys(data["loss"]))
    figure, axes = panels(1, len(losses) + 1, height=1.2)
    for ax, loss in zip(axes[0], losses, strict=False):
        for activation, rows in data[data["loss"] == loss].groupby("activation", sort=False):
            mean = rows.groupby("step")[["measured", "law"]].mean()
            ax.plot(mean.index, mean["law"], STYLES.get(activation, "-"), color=COLORS[activation], lw=0.8)
            points = mean.iloc[::3]
            ax.plot(points.index, points["measured"], "o", color=COLORS[activation], mfc="w", ms=3, label=activation)
        ax.axhline(1, color="k", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel="step $t$", title=LOSSES[loss], ylim=(0.9, None))
    axes[0, 0].set_ylabel(r"$tR/c$")
    ax, last = axes[0, -1], pd.DataFrame(ends)
    for activation, rows in last.groupby("activation", sort=False):
        for loss, marker in zip(losses, ("o", "s"), strict=False):
            one = rows[rows["loss"] == loss]
            ax.plot(one["a"], one["prefactor"], marker, color=COLORS[activation], mfc="w", ms=3)
    top = 1.1 * last["a"].max()
    ax.plot([0, top], [1, 1 + top], "k-", lw=0.8, label="$1+a$")
    ax.axhline(1, color="k", lw=0.8, ls="--", label="constant kernel")
    ax.set(xlabel=r"$a$ of $K\sim t^a$", title="prefactor at the end")
    ax.legend(fontsize=6)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def widths(data: pd.DataFrame) -> Figure:
    """The kernel's drift against width in both scalings, beside H^-1 and H^-1/2; data: scaling, hidden, seed, drift."""
    figure, axes = panels(1, 2, height=0.9, width_ratios=[1, 0.4])
    labels = {"ntk": r"NTK scaling, $\eta$ fixed", "standard": r"$v\sim N(0,1/H)$, $\eta\sim 1/H$"}
    for number, (scaling, rows) in enumerate(data.groupby("scaling", sort=False)):
        look = {"color": f"C{number}", "marker": "o", "lw": 0.9, "label": labels[scaling]}
        line_with_interval(axes[0, 0], rows["hidden"], rows["drift"], geometric=True, **look)
    first = data[data["scaling"] == "ntk"].groupby("hidden")["drift"].mean()
    for power, style in ((-1, "--"), (-0.5, ":")):
        law = first.iloc[0] * (first.index / first.index[0]) ** power
        axes[0, 0].plot(first.index, law, style, color="k", lw=0.8, label=f"$H^{{{power:g}}}$")
    axes[0, 0].set(xscale="log", yscale="log", xlabel="width $H$", ylabel="drift of the kernel")
    axes[0, 0].set_xticks(first.index, [str(width) for width in first.index])
    axes[0, 0].xaxis.set_minor_formatter(NullFormatter())
    axes[0, 1].set_axis_off()
    axes[0, 1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center left")
    return figure


def methods(data: pd.DataFrame) -> Figure:
    """The response against step for SGD, momentum and Adam; data: method, seed, step, response."""
    figure, axes = panels(1, 2, height=0.8, width_ratios=[1, 0.4])
    for number, (method, rows) in enumerate(data.groupby("method", sort=False)):
        look = {"color": f"C{number}", "marker": "o", "ms": 3, "lw": 1, "label": METHODS[method]}
        line_with_interval(axes[0, 0], rows["step"] + 1, rows["response"], geometric=True, band=True, **look)
    axes[0, 0].set(xscale="log", yscale="log", xlabel="step + 1", ylabel=r"mean $|R(x_i|x_i)|$")
    axes[0, 1].set_axis_off()
    axes[0, 1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center left")
    return figure


def splitting(data: pd.DataFrame) -> Figure:
    """Growth of (1 - across) / (1 - within) at the border of y = sign x, by initial bias: every seed, and the mean.

    data: bias, activation, seed, step, ratio.
    """
    biases = sorted(set(data["bias"]), reverse=True)
    figure, axes = panels(1, len(biases), height=0.8, sharey=True)
    start = data[data["step"] == 0].set_index(["bias", "activation", "seed"])["ratio"]
    growth = data["ratio"] / start.reindex(pd.MultiIndex.from_frame(data[["bias", "activation", "seed"]])).to_numpy()
    for ax, bias in zip(axes[0], biases, strict=True):
        for activation, rows in data.assign(growth=growth)[data["bias"] == bias].groupby("activation", sort=False):
            look = {"color": COLORS[activation], "lw": 1, "label": activation}
            line_with_interval(ax, rows["step"] + 1, rows["growth"], geometric=True, band=True, **look)
        ax.axhline(3, color="k", lw=0.8, ls="--")
        scale = "" if bias == 1 else f"{bias:g}\\,"
        title = "$b=0$: kinks on the border" if bias == 0 else rf"biases $b\sim {scale}N(0,1)$"
        ax.set(xlabel="step + 1", title=title)
    for ax in axes[0]:
        ax.set(xscale="log", yscale="log")
    axes[0, 0].set_ylabel("contrast / at start")
    plain_ticks(axes[0, 0].yaxis)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure


def stochastic(data: pd.DataFrame) -> Figure:
    """Left: eta mean Theta at the end against eta (study "cap"); right: mean Theta against eta^2 sigma^2 t ("noise").

    data: study, activation, eta, sigma, seed, step, u, stability, self_kernel.
    """
    figure, axes = panels(1, 2, height=1.0)
    cap = data[data["study"] == "cap"].dropna(subset=["stability"])
    for activation, rows in cap.groupby("activation", sort=False):
        look = {"color": COLORS[activation], "marker": "o", "label": activation}
        line_with_interval(axes[0, 0], rows["eta"], rows["stability"], **look)
    axes[0, 0].axhline(2, color="k", lw=0.8, ls="--")
    axes[0, 0].set(
        xscale="log", xlabel=r"learning rate $\eta$", ylabel=r"$\eta$ mean $\Theta_{ii}$ at the end", ylim=(0, 2.3)
    )
    plain_ticks(axes[0, 0].xaxis)
    axes[0, 0].legend(fontsize=6)
    styles = ("-", "--", ":", "-.")
    for activation, rows in data[data["study"] == "noise"].groupby("activation", sort=False):
        for style, ((eta, sigma), run) in zip(styles, rows.groupby(["eta", "sigma"]), strict=False):
            mean = run[run["u"] > 0].groupby("u")["self_kernel"].mean()
            label = rf"{activation}, $\eta={eta:g}$, $\sigma={sigma:g}$"
            axes[0, 1].plot(mean.index, mean, ls=style, color=COLORS[activation], lw=1, label=label)
    axes[0, 1].set(xscale="log", yscale="log", xlabel=r"$\eta^2\sigma^2t$", ylabel=r"mean $\Theta(x_i,x_i)$")
    plain_ticks(axes[0, 1].yaxis)
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=6)
    return figure


def contrast(data: pd.DataFrame, *, measures: dict[str, str]) -> Figure:
    """Each of four measures against eta^2 sigma^2 t: GD (dashed), SGD (dotted) and label noise, mean and interval.

    data: activation, training, eta, sigma, seed, u and a column for each of measures (name: title). GD and SGD have the
    clock of the label noise at as many steps. Thin: the means of label noise with other eta or sigma.
    """
    figure, axes = panels(2, 2, height=0.75, sharex=True)
    for ax, (measure, title) in zip(axes.flat, measures.items(), strict=True):
        for activation, part in data[data["u"] > 0].groupby("activation", sort=False):
            for training, style in TRAININGS.items():
                rows = part[part["training"] == training]
                look = {"color": COLORS[activation], "ls": style}
                for number, (_, run) in enumerate(rows.groupby(["sigma", "eta"])):
                    if number == 0:
                        label = f"{activation}, {training}"
                        line_with_interval(ax, run["u"], run[measure], band=True, label=label, lw=1.1, **look)
                    else:
                        mean = run.groupby("u")[measure].mean()
                        ax.plot(mean.index, mean, lw=0.5, **look)
        ax.set(title=title, ylim=(0, None))
    axes[0, 0].set_xscale("log")
    for ax in axes[-1]:
        ax.set_xlabel(r"$\eta^2\sigma^2t$")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=6)
    return figure


def _points_by(ax: Axes, data: pd.DataFrame, places: list[str], column: str, measure: str) -> None:
    for number, (activation, rows) in enumerate(data.groupby("activation", sort=False)):
        look = {"color": COLORS[activation], "marker": "o", "ls": "", "label": activation}
        line_with_interval(ax, rows[column].map(places.index) + 0.15 * number, rows[measure], **look)
    ax.set_xticks(range(len(places)), places, fontsize=6)
    ax.set_xlim(-0.4, len(places) - 0.4)


def fragility(data: pd.DataFrame) -> Figure:
    """Four measures of fragility after each training, by activation; data: training, activation, and the measures."""
    measures = {
        "flips": "flips by noise on inputs",
        "worst_neuron": "error, worst neuron off",
        "weight_noise": "error, noise on weights",
        "margin": "linearised margin",
    }
    figure, axes = panels(2, 2, height=0.7)
    trainings = list(dict.fromkeys(data["training"]))
    for ax, (measure, label) in zip(axes.flat, measures.items(), strict=True):
        _points_by(ax, data, trainings, "training", measure)
        ax.set(title=label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def plasticity(data: pd.DataFrame, *, cap: float) -> Figure:
    """Steps to relearn flipped labels against the steps trained before; data: loss, seed, before, relearning."""
    figure, axes = panels(1, 2, height=0.8, width_ratios=[1, 0.4])
    for number, (loss, rows) in enumerate(data.groupby("loss", sort=False)):
        look = {"color": f"C{number}", "marker": "o", "label": LOSSES[loss]}
        line_with_interval(axes[0, 0], rows["before"] + 1, rows["relearning"], geometric=True, **look)
    axes[0, 0].axhline(cap, color="k", lw=0.8, ls="--")
    axes[0, 0].set(xscale="log", yscale="log", xlabel="steps before the flip, + 1", ylabel="steps to relearn")
    axes[0, 1].set_axis_off()
    axes[0, 1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center left", title="dashed: not relearned")
    return figure


def phases(data: pd.DataFrame) -> Figure:
    """Response, kernel and node of the digits' networks along runs, coloured by phase; data: sigma, phase, step, ..."""
    figure, axes = panels(1, 3, height=0.9)
    labels = {"response": r"mean $|R|$", "self_kernel": r"mean $\Theta$", "niw_norm": r"$|W_{NI}|$"}
    for ax, (quantity, label) in zip(axes[0], labels.items(), strict=True):
        for (sigma, phase), rows in data.groupby(["sigma", "phase"], sort=False):
            ax.plot(rows["step"] + 1, rows[quantity], "o-", color=PHASE_COLORS[phase], mfc="w", ms=3, lw=0.9,
                    label=rf"{phase}, $\sigma={sigma:g}$")  # fmt: skip
        calm = data.loc[data["phase"] != "divergent", quantity]
        top, bottom = (10 * calm.max(), calm.min() / 2) if len(calm) else (None, None)
        ax.set(xscale="log", yscale="log", xlabel="step + 1", title=label, ylim=(bottom, top))
        ax.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
