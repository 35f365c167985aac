//! Integration tests: the program as users run it, with a cleared environment, beside the real peers.

#![allow(clippy::unwrap_used)]

mod artifacts;
mod attest;
mod bad_input;
mod base;
mod base_docker;
mod binary_cache;
mod bounds;
mod build_cache;
mod builders;
mod builders_buildbox;
mod builders_directory;
mod builders_faults;
mod builders_hostile;
mod capabilities;
mod certificates;
mod check;
mod ci;
mod completions;
mod configure;
mod containers;
mod copy;
mod crafted;
mod crash;
mod cross;
mod debian_root;
mod debian_words;
mod debug_images;
mod deep;
mod diff;
mod diff_pairs;
mod documents;
mod download;
mod early_cutoff;
mod emulation;
mod env;
mod escapes;
mod explain;
mod faces;
mod farm;
mod fault;
mod full_disk;
mod git;
mod go;
mod health;
mod images;
mod imports;
mod index;
mod init;
mod inputs;
mod inputs_hostile;
mod kept_elsewhere;
mod load;
mod memory;
mod mend;
mod mirrors;
mod names;
mod nested;
mod nix;
mod node;
mod output;
mod over_ssh;
mod places;
mod plan;
mod platforms;
mod profiles;
mod programs;
mod push;
mod python;
mod python_build;
mod python_index;
mod rebuild;
mod recipe;
mod references;
mod refresh;
mod registry;
mod rust;
mod scripts;
mod serve;
mod shared_builds;
mod shared_counts;
mod shared_nix;
mod shared_places;
mod shared_prune;
mod shells;
mod spec_places;
mod specs;
mod store;
mod support;
mod terminal;
mod trials;
mod two_readings;
mod unchanged;
mod update;
mod upkeep;
mod verify;
mod walls;
mod watch;
mod workloads;

// Debian archives that tests make.
#[path = "../../src/fetch/debian/testing_archive.rs"]
mod archive;

// A web server on loopback.
#[allow(dead_code, reason = "unit tests use the rest")]
#[path = "../../src/fetch/testing.rs"]
mod web;

// Registries, and one to speak to.
mod auth;
#[path = "../../src/transport/registry/config/tests/served.rs"]
mod served;
