//! Popular Debian workloads, configured and run by their own tests: a part of the table that `scripts/configure-table` makes
//! of all of them.

use crate::support::{Place, have, in_another_world};

/// What starts in little time: sites, modules, accounts, alternatives, PAM, diversions, locales, caches of types.
const SHORT: [&str; 9] = [
    "apache2", "gio", "haproxy", "locales", "nginx", "php-fpm", "redis", "sudo", "vim",
];

/// The workloads run; and as a user, in another store and other surroundings, each image has the same digest.
#[test]
fn popular_packages_start() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::with_copy_of("fixtures/workloads");
    let tested = place.run(&[&["test", "--locked"][..], &SHORT].concat());
    let failed: Vec<_> = (tested.stdout.lines())
        .filter(|line| !line.starts_with("ok "))
        .collect();
    assert!(failed.is_empty(), "{}\n{}", tested.stdout, tested.stderr);
    assert!(tested.success().stdout.lines().count() >= SHORT.len());

    let command = [&["build", "--locked"][..], &SHORT].concat();
    let built = place.run(&command).success();
    let (_other, again) = in_another_world(&place, &command);
    assert_eq!(again.stdout, built.stdout);
}
