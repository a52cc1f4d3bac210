"""Tools of the checkout: reference pages, checks of the documentation, the control plane that tests run against."""
