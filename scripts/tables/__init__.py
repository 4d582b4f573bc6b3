"""Tables as data: grids of runs, their execution, statistics, plots and the written report."""
