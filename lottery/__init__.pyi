"""What the package `lottery` exports: the one list, for editors and type checkers, and for the package itself."""

from lottery.api import find_ticket as find_ticket
from lottery.data import Data as Data
from lottery.data.fitness import Fitness as Fitness
from lottery.exports.exporting import export as export
from lottery.networks.objectives.metric import Metric as Metric
from lottery.results.comparison import compare as compare
from lottery.results.comparison import difference_table as difference_table
from lottery.results.figure import comparison_figure as comparison_figure
from lottery.results.figure import draw_density as draw_density
from lottery.results.levels import Search as Search
from lottery.results.resampling import bootstrap as bootstrap
from lottery.results.resampling import interquartile_mean as interquartile_mean
from lottery.results.statistics import by_seed as by_seed
from lottery.results.statistics import expected_best as expected_best
from lottery.results.statistics import holm as holm
from lottery.results.statistics import paired_difference as paired_difference
from lottery.results.statistics import paired_t_p as paired_t_p
from lottery.results.statistics import pairs as pairs
from lottery.results.statistics import sign_flip_p as sign_flip_p
from lottery.runs.ticket import Ticket as Ticket
from lottery.studies.ablation.report import ablation_figure as ablation_figure
from lottery.studies.ablation.report import ablation_table as ablation_table
from lottery.studies.ablation.running import ablate as ablate
from lottery.studies.analyses import analyze as analyze
from lottery.studies.analyses import study as study
from lottery.studies.analyses.overlap_between import overlap_between as overlap_between
from lottery.studies.connection.report import connections_figure as connections_figure
from lottery.studies.connection.report import connections_table as connections_table
from lottery.studies.connection.tickets import connect as connect
from lottery.studies.instability.report import stability_figure as stability_figure
from lottery.studies.instability.report import stability_table as stability_table
from lottery.studies.instability.running import instability as instability
from lottery.studies.layers import layers as layers
from lottery.studies.seeds.grid import SeedGrid as SeedGrid
from lottery.studies.seeds.grid import seed_grid as seed_grid
from lottery.studies.starting.starting import Started as Started
from lottery.studies.starting.starting import start as start
from lottery.studies.transfer.again import train_ticket as train_ticket
from lottery.studies.transfer.table import transfer as transfer
from pruning.mask import Mask as Mask
from pruning.mask_holder import mask_holder as mask_holder

__version__: str
