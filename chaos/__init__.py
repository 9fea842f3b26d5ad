"""The chaos test: break all processes under steady traffic, then count the damage.

`./run chaos` starts it. The product never imports this package, and the package changes nothing in
production code. Faults act from outside: they kill processes, cut connections and freeze processes.
The sabotages live in this package and change only the run's own database.
"""
