"""Fast paths of the recurrent cells, equal to the reference loop in outputs and gradients."""
