"""How evolution trains: strategies, populations, tasks, and the trainer. Knows nothing of levels.

A network is searched in the coordinates that a mask leaves (`coordinates`), by an evosax strategy (`strategies`), on a
task (`tasks`) that turns a population of coordinate vectors into losses; `trainer` puts them together behind the
protocol of `pruning.jobs.Trainer`.
"""
