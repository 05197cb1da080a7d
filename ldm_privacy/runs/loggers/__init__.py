"""Where the curves of a run go, one logger a file; metrics.csv is the authority.

A logger is a Lightning `Logger`. These methods are optional, and called in the main process where it has them:

* `log_look(series, charts, epoch, step)` in place of `log_metrics` for what watchers saw; `charts` says which of the series a
  person watches: chart -> series, see `Look`;
* `log_curves(curves, epoch)` after each audit with the `MaskCurves` of the primary attack (else they are a picture);
* `log_picture(name, picture, epoch)` with a figure or an array of pixels (height, width, 3);
* `log_summary(values)` after the last step;
* `log_evaluation(evaluation, folder)` after the files of the last audit's `Evaluation` were written there;
* `go_on(file)` before a resumed run logs anything, with a `SeriesFile` of what was logged up to its checkpoint;
* `commands()`: command -> what it is for, printed at the end.
"""
