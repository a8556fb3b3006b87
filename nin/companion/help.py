"""What `python -m nin COMMAND --help` says."""

HELP = """Runs the notebooks of the companion, lists stored runs, and draws saved figures for papers.

  python -m nin list                  the notebooks and their parameters
  python -m nin run 01 width=2000     run one notebook with another value
  python -m nin COMMAND --help        what a command does, with examples"""

RUN_HELP = """Runs notebooks (all, if none is named) and prints their run times, the figures they wrote and all checks.

  python -m nin run                                   every notebook, profile quick
  python -m nin run 01 width=2000 seeds=8           one notebook with other parameters
  python -m nin run --profile paper --out runs/mine   another profile, results in a folder
  python -m nin run 03 sigma_shown=3 --prepare-only   the notebook with these values, to open and run yourself
  python -m nin run --why                             which notebooks are up to date, and what has changed

Notebooks run side by side, as many as cores and memory allow (--jobs N). One is skipped as up to date if nothing that
decides has changed since it finished: its cells, parameters, the code of nin and of the studies it names, the data, the
versions of packages, and the files it wrote; --force runs it all the same. Stopped, the command goes on where it was.

Executed notebooks go to runs/PROFILE and figures to figures/PROFILE. With other parameters, both go to runs/custom, so
that the results of the profile are kept.
Exit code 1 if a notebook fails or writes no checks, or if a check does not hold; 2 for bad arguments."""

LIST_HELP = """Lists the notebooks and their parameters: type, default, allowed range and meaning.
`python -m nin run NOTEBOOK name=value` sets them."""

RUNS_HELP = """Lists the runs that nin.sweep has stored: phase, key, the config fields that differ between runs, age and
size. Exit code 1 if a run is damaged or was written by a newer version of nin.

  python -m nin runs --verify              compare every file with its checksum
  python -m nin runs --export runs.csv     all runs as one tidy table
  python -m nin runs --prune               what is damaged, and readings of probes that this version would take anew
  python -m nin runs --prune --yes         the same, and remove it"""

FIGURES_HELP = """Lists the saved figures, and draws them for papers from their saved tables; nothing is trained.

  python -m nin figures list                                  all saved figures
  python -m nin figures export 02b_decay_times --venue prl    paper/02b_decay_times.pdf and .tex
  python -m nin figures export --all --venue icml --to paper/figures
  python -m nin figures sheet --to figures.pdf                all figures, several to a page
  python -m nin figures draw phases my.csv                    a figure of your own table

The figures are read from figures/ in the clone, or from the folder named by the variable NIN_FIGURES."""

FIGURES_LIST_HELP = """Lists the saved figures, one table per profile: name, notebook, what the figure shows, day and
commit of saving. The day is that of the saved table: in a fresh clone, the day of cloning."""

EXPORT_HELP = """Draws figures again at the width and font sizes of a venue.
With each comes NAME.tex, a LaTeX figure whose caption says what is shown and from which notebook, parameters, seeds,
data and commit.

  venue     --column full (default)   --column one
  neurips   5.5 in                    -
  icml      6.75 in                   3.25 in
  prl       7 in                      3.375 in
  jmlr      6 in                      -

In one column of two, panels stand below each other. A figure that cannot be read there is named and not written.
The formats are pdf, pgf, svg and png. A pgf file uses the fonts of the document and needs a TeX system (pdflatex,
xelatex or lualatex). The same command always writes the same bytes.
Exit code 1 if a figure has no form at this width; 2, with nothing written, for an unknown name, venue or format."""

DRAW_HELP = """Draws a figure of your own table, a csv file with these columns, and saves it in figures/own, where
`figures list` and `figures export` find it.

  python -m nin figures draw phases my.csv                     figures/own/my_phases.pdf, .svg, .png, .csv, .json
  python -m nin figures draw readings my.csv --name curvature --to results

  FIGURE         columns                          what it shows
  trajectories   step noisy_loss niw_norm         losses and |W_NI| of each run, in the colour of its phase
  phases         step noisy_loss niw_norm sigma   what decides the phase of each run, against sigma
  decay_times    step noisy_loss niw_norm sigma   decay times of |W_NI| and of the clean losses
  readings       step, and columns of numbers     the numbers of probes against step, a panel for each

A row is a step of a run. Used as well if they are there: run (a number for each run), expected_loss with ratio_stderr,
train_loss, test_loss, niw_decay; for readings quantity, value and error. Such a table is nin.Record.frame(),
nin.train(...).frame() or nin.sweep(...), saved by to_csv."""

EXPLORE_HELP = """Trains three small networks with a noise injection node, reports their phase, and writes a figure, a
phase diagram and a table: the same as the explorer (make explore) shows for these values.

  python -m nin explore                               digits, sigma=8, lr=0.05
  python -m nin explore network='linear net' sigma=8 lr=0.02 width=512 --to mine

  network=digits   digits or 'linear net'           width=64       units of each hidden layer
  sigma=8.0        noise scale                      batch=128      samples per step
  lr=0.05          learning rate                    layer=0        the linear layer that the node feeds
  law=gaussian     law of the noise: gaussian, rademacher or uniform"""

PREDICT_HELP = """Predicts the phase of a run from its network before training, and the noise scales at which decay,
catapult and divergence begin. Says whether plain SGD is unstable at this learning rate by itself.

  python -m nin predict                               digits, widths=128,128,128, sigma=1.0, lr=0.05
  python -m nin predict sigma=30 loss=mse widths=64,64 activation=tanh

Names and defaults are those of nin.RunConfig:

  dataset=digits      digits, mnist, fashion_mnist or linear_teacher       n_train=None   None: all
  network=mlp         mlp or linear         widths=128,128,128             init=he        he or ntk
  activation=relu     relu, tanh, softplus or linear                       loss=cross_entropy, or mse
  layer=0             the linear layer that the node feeds                 sigma=1.0      noise scale
  nodes=1             number of nodes       niw_std=None   None: |W_NI| is about 1
  law=gaussian        gaussian, uniform or rademacher                      lr=0.05        learning rate
  batch_size=128      samples per step      steps=1500     length of the run
  seed=0              of weights and draws  dtype=float32  float32 or float64"""
