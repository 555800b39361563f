"""Fast paths of the recurrent cells. Each equals the reference loop in outputs and gradients."""
