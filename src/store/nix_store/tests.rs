//! A Nix store read in every way, against what real Nix says.
