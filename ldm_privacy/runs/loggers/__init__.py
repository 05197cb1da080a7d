"""Where the curves of a run go, one logger a file; metrics.csv is the authority.

A logger is a Lightning `Logger`. Three methods are optional, and called in the main process where it has them:
`log_picture(name, picture, epoch)` with a figure or an array of pixels (height, width, 3); `log_summary(values)` after the last
step; `log_evaluation(evaluation, folder)` after the files of the last audit's `Evaluation` were written there.
"""
