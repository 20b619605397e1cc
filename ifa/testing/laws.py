"""Laws: what every weighting, reduction, chain, scale, selection, tap and store must satisfy.

A law is a function of the thing under test. It draws its own inputs, and raises an
`AssertionError` with the smallest counterexample if it does not hold. `examples` says how many are
drawn; by default as many as the hypothesis profile in force says. The tuples `WEIGHTING`,
`REDUCTION`, `CHAIN`, `STEP`, `FILTER`, `FILL`, `RESCALE`, `SELECT`, `TAP`, `STORE`, `MAP_METRIC`,
`METRIC`, `ATTRIBUTION`, `DENSE` and `BASIS` hold the laws of one kind of thing, which take the same
positional arguments, so that a test is one line::

    @pytest.mark.parametrize("law", ifa.testing.laws.WEIGHTING)
    def test_my_weighting(law):
        law(my_weighting)
"""

from collections.abc import Callable, Sequence

from ifa.testing.attribution_laws import ATTRIBUTION as ATTRIBUTION
from ifa.testing.attribution_laws import (
    a_linear_network_has_a_closed_form as a_linear_network_has_a_closed_form,
)
from ifa.testing.attribution_laws import (
    a_transform_without_noise_is_its_limit as a_transform_without_noise_is_its_limit,
)
from ifa.testing.attribution_laws import (
    an_attribution_does_not_depend_on_its_chunk as an_attribution_does_not_depend_on_its_chunk,
)
from ifa.testing.attribution_laws import an_attribution_is_complete as an_attribution_is_complete
from ifa.testing.attribution_laws import (
    an_attribution_is_shaped_like_the_inputs as an_attribution_is_shaped_like_the_inputs,
)
from ifa.testing.attribution_laws import (
    an_attribution_leaves_model_and_inputs as an_attribution_leaves_model_and_inputs,
)
from ifa.testing.attribution_laws import (
    an_attribution_of_many_targets_is_that_of_each as an_attribution_of_many_targets_is_that_of_each,  # noqa: E501
)
from ifa.testing.attribution_laws import (
    an_attribution_takes_a_tuple_as_it_takes_a_tensor as an_attribution_takes_a_tuple_as_it_takes_a_tensor,  # noqa: E501
)
from ifa.testing.attribution_laws import (
    an_attribution_treats_each_sample_alone as an_attribution_treats_each_sample_alone,
)
from ifa.testing.attribution_laws import (
    chaining_transforms_is_applying_them as chaining_transforms_is_applying_them,
)
from ifa.testing.attribution_laws import transforms_commute as transforms_commute
from ifa.testing.basis_laws import BASIS as BASIS
from ifa.testing.basis_laws import (
    a_full_orthonormal_basis_changes_no_map as a_full_orthonormal_basis_changes_no_map,
)
from ifa.testing.basis_laws import (
    permuting_atoms_permutes_importances as permuting_atoms_permutes_importances,
)
from ifa.testing.basis_laws import projecting_leaves_its_input as projecting_leaves_its_input
from ifa.testing.basis_laws import (
    the_identity_basis_gives_the_channels as the_identity_basis_gives_the_channels,
)
from ifa.testing.basis_laws import what_no_atom_holds_is_the_rest as what_no_atom_holds_is_the_rest
from ifa.testing.chain_laws import CHAIN as CHAIN
from ifa.testing.chain_laws import STEP as STEP
from ifa.testing.chain_laws import a_chain_of_one_is_its_step as a_chain_of_one_is_its_step
from ifa.testing.chain_laws import a_chain_pickles as a_chain_pickles
from ifa.testing.chain_laws import a_step_leaves_its_input as a_step_leaves_its_input
from ifa.testing.chain_laws import (
    a_step_over_a_batch_equals_a_loop as a_step_over_a_batch_equals_a_loop,
)
from ifa.testing.chain_laws import a_step_refuses_a_batch as a_step_refuses_a_batch
from ifa.testing.chain_laws import an_empty_chain_is_the_identity as an_empty_chain_is_the_identity
from ifa.testing.chain_laws import chaining_is_associative as chaining_is_associative
from ifa.testing.chain_laws import placing_evenly_is_resizing as placing_evenly_is_resizing
from ifa.testing.dense_laws import DENSE as DENSE
from ifa.testing.dense_laws import (
    a_dense_mean_makes_maps_complete as a_dense_mean_makes_maps_complete,
)
from ifa.testing.dense_laws import (
    a_finer_grid_has_the_networks_own_gradcam as a_finer_grid_has_the_networks_own_gradcam,
)
from ifa.testing.dense_laws import (
    a_finer_grid_has_the_networks_own_gradients as a_finer_grid_has_the_networks_own_gradients,
)
from ifa.testing.dense_laws import a_finer_grid_is_exact as a_finer_grid_is_exact
from ifa.testing.dense_laws import a_finer_grid_is_made_of_shifts as a_finer_grid_is_made_of_shifts
from ifa.testing.dense_laws import (
    a_finer_grid_lies_where_the_network_does as a_finer_grid_lies_where_the_network_does,
)
from ifa.testing.map_metric_laws import MAP_METRIC as MAP_METRIC
from ifa.testing.map_metric_laws import (
    a_map_metric_does_not_depend_on_the_unit as a_map_metric_does_not_depend_on_the_unit,
)
from ifa.testing.map_metric_laws import (
    a_map_metric_leaves_its_arguments as a_map_metric_leaves_its_arguments,
)
from ifa.testing.map_metric_laws import (
    a_map_metric_over_a_batch_equals_a_loop as a_map_metric_over_a_batch_equals_a_loop,
)
from ifa.testing.map_metric_laws import (
    a_map_metric_stays_in_its_bounds as a_map_metric_stays_in_its_bounds,
)
from ifa.testing.map_metric_laws import (
    a_map_that_shows_nothing_has_no_value as a_map_that_shows_nothing_has_no_value,
)
from ifa.testing.map_metric_laws import (
    permuting_positions_changes_nothing as permuting_positions_changes_nothing,
)
from ifa.testing.metric_laws import METRIC as METRIC
from ifa.testing.metric_laws import (
    a_metric_does_not_depend_on_its_portions as a_metric_does_not_depend_on_its_portions,
)
from ifa.testing.metric_laws import (
    a_metric_leaves_model_and_arguments as a_metric_leaves_model_and_arguments,
)
from ifa.testing.metric_laws import (
    a_metric_of_many_targets_is_that_of_each as a_metric_of_many_targets_is_that_of_each,
)
from ifa.testing.metric_laws import (
    a_metric_takes_a_tuple_as_it_takes_a_tensor as a_metric_takes_a_tuple_as_it_takes_a_tensor,
)
from ifa.testing.metric_laws import (
    a_metric_treats_each_sample_alone as a_metric_treats_each_sample_alone,
)
from ifa.testing.metric_laws import a_silent_map_has_no_value as a_silent_map_has_no_value
from ifa.testing.reduction_laws import REDUCTION as REDUCTION
from ifa.testing.reduction_laws import (
    a_reduction_leaves_its_arguments as a_reduction_leaves_its_arguments,
)
from ifa.testing.reduction_laws import a_state_survives_the_store as a_state_survives_the_store
from ifa.testing.reduction_laws import (
    a_statistic_equals_its_definition as a_statistic_equals_its_definition,
)
from ifa.testing.reduction_laws import (
    a_variance_survives_far_from_zero as a_variance_survives_far_from_zero,
)
from ifa.testing.reduction_laws import (
    an_empty_state_is_the_identity as an_empty_state_is_the_identity,
)
from ifa.testing.reduction_laws import merging_is_associative as merging_is_associative
from ifa.testing.reduction_laws import order_does_not_matter as order_does_not_matter
from ifa.testing.reduction_laws import splits_do_not_matter as splits_do_not_matter
from ifa.testing.refine_laws import FILL as FILL
from ifa.testing.refine_laws import FILTER as FILTER
from ifa.testing.refine_laws import a_filter_is_linear_in_the_map as a_filter_is_linear_in_the_map
from ifa.testing.refine_laws import a_filter_keeps_a_constant as a_filter_keeps_a_constant
from ifa.testing.refine_laws import filling_only_adds as filling_only_adds
from ifa.testing.refine_laws import filling_twice_is_filling_once as filling_twice_is_filling_once
from ifa.testing.refine_laws import (
    flipping_space_flips_what_is_filtered as flipping_space_flips_what_is_filtered,
)
from ifa.testing.scale_laws import RESCALE as RESCALE
from ifa.testing.scale_laws import a_limit_of_zero_is_honoured as a_limit_of_zero_is_honoured
from ifa.testing.scale_laws import each_target_has_its_own_scale as each_target_has_its_own_scale
from ifa.testing.scale_laws import low_and_high_go_to_the_limits as low_and_high_go_to_the_limits
from ifa.testing.scale_laws import rescaling_keeps_the_order as rescaling_keeps_the_order
from ifa.testing.scale_laws import unscaling_undoes_rescaling as unscaling_undoes_rescaling
from ifa.testing.select_laws import SELECT as SELECT
from ifa.testing.select_laws import a_ratio_of_one_keeps_all as a_ratio_of_one_keeps_all
from ifa.testing.select_laws import (
    a_selection_is_the_complement_of as a_selection_is_the_complement_of,
)
from ifa.testing.select_laws import exactly_k_channels_are_kept as exactly_k_channels_are_kept
from ifa.testing.select_laws import labels_are_kept as labels_are_kept
from ifa.testing.select_laws import selecting_leaves_the_values as selecting_leaves_the_values
from ifa.testing.select_laws import (
    strongest_are_kept_and_ties_go_to_the_lower as strongest_are_kept_and_ties_go_to_the_lower,
)
from ifa.testing.store_laws import STORE as STORE
from ifa.testing.store_laws import (
    a_store_gives_back_what_was_put_in as a_store_gives_back_what_was_put_in,
)
from ifa.testing.store_laws import another_analysis_is_refused as another_analysis_is_refused
from ifa.testing.store_laws import (
    repeating_an_analysis_changes_nothing as repeating_an_analysis_changes_nothing,
)
from ifa.testing.store_laws import (
    verifying_passes_until_a_byte_changes as verifying_passes_until_a_byte_changes,
)
from ifa.testing.tap_laws import TAP as TAP
from ifa.testing.tap_laws import a_tap_equals_autograd as a_tap_equals_autograd
from ifa.testing.tap_laws import a_tap_equals_finite_differences as a_tap_equals_finite_differences
from ifa.testing.tap_laws import a_tap_leaves_the_model as a_tap_leaves_the_model
from ifa.testing.tap_laws import (
    a_tap_takes_a_tuple_as_it_takes_a_tensor as a_tap_takes_a_tuple_as_it_takes_a_tensor,
)
from ifa.testing.tap_laws import a_tap_treats_each_sample_alone as a_tap_treats_each_sample_alone
from ifa.testing.tap_laws import (
    positions_are_centers_of_what_units_see as positions_are_centers_of_what_units_see,
)
from ifa.testing.weighting_laws import WEIGHTING as WEIGHTING
from ifa.testing.weighting_laws import (
    doubling_gradients_doubles_weights as doubling_gradients_doubles_weights,
)
from ifa.testing.weighting_laws import (
    flipping_space_flips_spatial_weights as flipping_space_flips_spatial_weights,
)
from ifa.testing.weighting_laws import (
    permuting_channels_permutes_weights as permuting_channels_permutes_weights,
)
from ifa.testing.weighting_laws import (
    weighting_a_batch_equals_a_loop as weighting_a_batch_equals_a_loop,
)
from ifa.testing.weighting_laws import weighting_leaves_its_inputs as weighting_leaves_its_inputs
from ifa.testing.weighting_laws import weights_are_always_finite as weights_are_always_finite
from ifa.testing.weighting_laws import (
    zero_gradients_give_zero_weights as zero_gradients_give_zero_weights,
)

LAWS: Sequence[Callable[..., None]] = (
    *WEIGHTING,
    *REDUCTION,
    a_statistic_equals_its_definition,
    a_variance_survives_far_from_zero,
    *BASIS,
    *CHAIN,
    *STEP,
    *FILTER,
    *FILL,
    *RESCALE,
    *SELECT,
    a_selection_is_the_complement_of,
    *TAP,
    positions_are_centers_of_what_units_see,
    placing_evenly_is_resizing,
    *STORE,
    *MAP_METRIC,
    *METRIC,
    *ATTRIBUTION,
    an_attribution_does_not_depend_on_its_chunk,
    an_attribution_is_complete,
    a_linear_network_has_a_closed_form,
    a_transform_without_noise_is_its_limit,
    transforms_commute,
    chaining_transforms_is_applying_them,
    *DENSE,
    a_finer_grid_is_made_of_shifts,
    a_dense_mean_makes_maps_complete,
)
