"""Programs that several recipes share."""

from vaestro.models.base import VAE, Step, TopDown, data_of

__all__ = ["VAE", "Step", "TopDown", "data_of"]
