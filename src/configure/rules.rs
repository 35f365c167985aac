//! What maintainer scripts make and an image does not get: one table, each row with its reason.
//!
//! Invariant: pure. What is told was meant to be unique to one machine, or differs from run to run: it is made when a
//! container starts, or by whoever has it. What is not told is the package manager's own, or nothing to a container.

/// Which paths (relative to `/`) a rule is for.
enum Paths {
    /// This one.
    One(&'static str),
    /// A directory and all below it.
    Tree(&'static str),
    /// All below a directory, which stays with its owner.
    Below(&'static str),
    /// Those in a directory whose names begin and end so.
    Named(&'static str, &'static str, &'static str),
    /// Those anywhere whose names end so.
    Ending(&'static str),
}

use Paths::{Below, Ending, Named, One, Tree};

/// What an image does not get, and why the user is to know.
const TOLD: &[(Paths, &str)] = &[
    (
        Named("etc/ssh", "ssh_host_", ""),
        "a host key is a secret, and all containers of the image would share it: run `ssh-keygen -A` when one starts",
    ),
    (
        One("etc/ssl/private/ssl-cert-snakeoil.key"),
        "a private key is a secret: run `make-ssl-cert generate-default-snakeoil` when a container starts",
    ),
    (
        One("etc/ssl/certs/ssl-cert-snakeoil.pem"),
        "its private key is not in the image",
    ),
    (
        Below("etc/ssl/private"),
        "a private key is a secret: mount one, or make it when a container starts",
    ),
    (
        Named("etc/unbound", "unbound_", ""),
        "a key is a secret: run `unbound-control-setup` when a container starts",
    ),
    (
        One("etc/munge/munge.key"),
        "a key is a secret: mount one, or run `mungekey` when a container starts",
    ),
    (
        Named("etc/dbconfig-common", "", ".conf"),
        "it holds the password of a database: mount one",
    ),
    (
        Below("var/lib/samba/private"),
        "it holds passwords and one machine's identifier: mount one",
    ),
    (
        One("var/lib/systemd/credential.secret"),
        "a key is a secret: `systemd-creds setup` makes it",
    ),
    (
        One("etc/iscsi/initiatorname.iscsi"),
        "it identifies one machine: mount one, or run `iscsi-iname` when a container starts",
    ),
    (
        Named("etc/nvme", "host", ""),
        "it identifies one machine: run `nvme gen-hostnqn` when a container starts",
    ),
    (
        One("etc/machine-id"),
        "it identifies one machine: the container's start makes it",
    ),
    (
        One("var/lib/dbus/machine-id"),
        "it identifies one machine: run `dbus-uuidgen --ensure` when a container starts",
    ),
    (
        Ending("/.erlang.cookie"),
        "it is a secret: mount one, or let the server make it",
    ),
    (
        One("etc/bind/rndc.key"),
        "it is a secret: run `rndc-confgen -a` when a container starts",
    ),
    (
        Below("var/lib/mysql"),
        "a database is one machine's: run `mariadb-install-db` when a container starts",
    ),
    (
        Below("var/lib/postgresql"),
        "a database is one machine's: run `initdb` when a container starts",
    ),
    (
        Tree("etc/postgresql"),
        "the configuration of one machine's database: run `initdb` when a container starts",
    ),
    (Below("var/lib/ldap"), "a database is one machine's: mount one"),
    (
        Tree("etc/ldap/slapd.d"),
        "it holds a password, identifiers and times: mount one, or run `slapadd`",
    ),
    (
        Tree("var/lib/systemd/catalog"),
        "it is one machine's: `journalctl --update-catalog` makes it",
    ),
    (
        One("var/lib/systemd/random-seed"),
        "a seed that all containers share is none",
    ),
    (
        One("etc/aliases.db"),
        "it differs from run to run: run `newaliases` when a container starts",
    ),
];

/// What an image does not get, without a word.
const QUIET: &[(Paths, &str)] = &[
    (
        Tree("var/lib/dpkg"),
        "the package manager's database; the image has `status.d` for scanners",
    ),
    (Tree("var/cache/debconf"), "answers to questions"),
    (Tree("var/lib/apt"), "the package manager's state"),
    (Tree("var/cache/apt"), "the package manager's cache"),
    (
        Tree("var/lib/ucf"),
        "what configuration files were when they were installed",
    ),
    (
        Tree("var/cache/ucf"),
        "what configuration files were when they were installed",
    ),
    (
        Tree("var/lib/pam"),
        "which profiles were chosen; the outcome is in /etc/pam.d",
    ),
    (Tree("var/lib/systemd/deb-systemd-helper-enabled"), "there is no init"),
    (
        Tree("var/lib/systemd/deb-systemd-user-helper-enabled"),
        "there is no init",
    ),
    (Tree("var/lib/systemd/deb-systemd-helper-masked"), "there is no init"),
    (Named("etc", "rc", ".d"), "there is no init"),
    (Ending(".wants"), "there is no init"),
    (Ending(".requires"), "there is no init"),
    (Tree("etc/systemd/system"), "there is no init"),
    (Tree("etc/systemd/user"), "there is no init"),
    (Tree("etc/runit/runsvdir"), "there is no init"),
    (
        One("var/lib/shells.state"),
        "which shells there were when /etc/shells was written",
    ),
    (
        One("etc/apt/apt.conf.d/02autoremove-postgresql"),
        "which clusters of one machine keep packages from being removed",
    ),
    (One("var/log/dpkg.log"), "a log of the installation"),
    (One("var/log/alternatives.log"), "a log of the installation"),
    (One("var/log/bootstrap.log"), "a log of the installation"),
    (One("var/log/fontconfig.log"), "a log of the installation"),
    (Tree("var/log/apt"), "a log of the installation"),
    (Named("etc", "", "-"), "a copy of what was before"),
    (One("etc/.pwd.lock"), "a lock"),
    (Tree("run/adduser"), "a lock"),
    (
        One("etc/ld.so.cache"),
        "it names libraries of the tools; the loader looks where they are without it",
    ),
    (Tree("var/cache/ldconfig"), "times and inode numbers"),
    (Tree("var/cache/man"), "times; `mandb` makes it"),
    (
        Named("usr/share/info", "dir", ""),
        "an index of manuals, in the order of their installation",
    ),
    (Ending(".dpkg-new"), "the package manager's copy"),
    (Ending(".dpkg-old"), "the package manager's copy"),
    (Ending(".dpkg-dist"), "the package manager's copy"),
    (Ending(".dpkg-tmp"), "the package manager's copy"),
    (Ending(".ucf-new"), "the package manager's copy"),
    (Ending(".ucf-old"), "the package manager's copy"),
    (Ending(".ucf-dist"), "the package manager's copy"),
    (One("etc/hosts"), "the container's engine writes it"),
    (One("etc/hostname"), "the container's engine writes it"),
    (One("etc/resolv.conf"), "the container's engine writes it"),
    (One("etc/mtab"), "it tells of mounts"),
    (Below("tmp"), "temporary"),
    (Below("var/tmp"), "temporary"),
    (Below("dev"), "the container's engine makes it"),
    (Below("proc"), "the container's engine makes it"),
    (One("usr/sbin/policy-rc.d"), "it keeps scripts from starting services"),
];

/// What of the tools no image needs, and no later step.
const LEFT_BY_TOOLS: &[Paths] = &[
    One("var/log/dpkg.log"),
    One("var/log/alternatives.log"),
    One("var/log/bootstrap.log"),
    One("var/lib/dpkg/status-old"),
    One("var/lib/dpkg/lock"),
    One("var/lib/dpkg/lock-frontend"),
    One("var/lib/dpkg/triggers/Lock"),
    Ending("-old"),
    Tree("var/cache/ldconfig"),
    Below("tmp"),
    Below("var/tmp"),
    Below("dev"),
    Below("proc"),
    One("etc/.pwd.lock"),
    Named("etc", "", "-"),
];

/// Whether an image gets a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does.
    Kept,
    /// It does not, and nobody needs to know.
    Quiet,
    /// It does not, for this reason.
    Told(&'static str),
}

/// Whether an image gets what scripts made at `path`.
pub(super) fn judge(path: &str) -> Verdict {
    let fits = |(paths, reason): &(Paths, &'static str)| paths.fit(path).then_some(*reason);
    match (TOLD.iter().find_map(fits), QUIET.iter().find_map(fits)) {
        (Some(reason), _) => Verdict::Told(reason),
        (None, Some(_)) => Verdict::Quiet,
        (None, None) => Verdict::Kept,
    }
}

/// Whether later steps get what scripts of the tools made at `path`.
pub(super) fn tools_keep(path: &str) -> bool {
    !LEFT_BY_TOOLS.iter().any(|paths| paths.fit(path))
}

impl Paths {
    fn fit(&self, path: &str) -> bool {
        let below = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        match self {
            One(own) => path == *own,
            Tree(dir) => path == *dir || below(dir),
            Below(dir) => below(dir),
            Named(dir, start, end) => path
                .strip_prefix(dir)
                .and_then(|rest| rest.strip_prefix('/'))
                .and_then(|rest| rest.split('/').next())
                .is_some_and(|name| {
                    name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
                }),
            // A directory of that name, too, with all below it.
            Ending(end) => path
                .match_indices('/')
                .map(|(at, _)| &path[..at])
                .chain([path])
                .any(|part| part.ends_with(end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a rule is for, and what is near it and is not.
    fn examples(paths: &Paths) -> (Vec<String>, Vec<String>) {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        match paths {
            One(path) => (own(&[path]), vec![format!("{path}x"), format!("{path}/x")]),
            Tree(dir) => (vec![(*dir).to_owned(), format!("{dir}/x/y")], vec![format!("{dir}x")]),
            Below(dir) => (
                vec![format!("{dir}/x"), format!("{dir}/x/y")],
                vec![(*dir).to_owned(), format!("{dir}x")],
            ),
            Named(dir, start, end) => (
                vec![format!("{dir}/{start}x{end}"), format!("{dir}/{start}x{end}/y")],
                vec![format!("{dir}/sub/{start}x{end}"), format!("{dir}x/{start}x{end}")],
            ),
            Ending(end) => (
                vec![format!("srv/x{end}"), format!("srv/x{end}/y")],
                vec![format!("srv/x{end}x")],
            ),
        }
    }

    /// Each rule of each table does what it says, for what it says and nothing near it, and says why.
    #[test]
    fn each_rule_fits_its_paths_and_no_others() {
        for (table, is_told) in [(TOLD, true), (QUIET, false)] {
            for (paths, reason) in table {
                assert!(reason.len() > 3, "{reason}");
                let (fitting, near) = examples(paths);
                for path in fitting {
                    assert!(paths.fit(&path), "{path}");
                    let verdict = judge(&path);
                    assert_ne!(verdict, Verdict::Kept, "{path}");
                    // A rule that is always behind another would be of no use.
                    let others = TOLD.iter().filter(|(other, _)| other.fit(&path)).count();
                    assert!(!is_told || others > 0, "{path}");
                    assert!(is_told || verdict == Verdict::Quiet, "{path} is told by another rule");
                }
                for path in near {
                    assert!(!paths.fit(&path), "{path}");
                }
            }
        }
        for paths in LEFT_BY_TOOLS {
            for path in examples(paths).0 {
                assert!(!tools_keep(&path), "{path}");
            }
        }
    }

    /// What is emptied keeps its place, with the owner that scripts gave it.
    #[test]
    fn a_directory_that_is_emptied_stays() {
        let emptied = TOLD.iter().chain(QUIET).filter_map(|(paths, _)| match paths {
            Below(dir) => Some(*dir),
            _ => None,
        });
        for dir in emptied {
            assert_eq!(judge(dir), Verdict::Kept, "{dir}");
        }
    }

    #[test]
    fn secrets_and_state_of_one_machine_are_told() {
        for path in [
            "etc/ssh/ssh_host_rsa_key",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "etc/machine-id",
            "etc/ssl/private/server.key",
            "etc/unbound/unbound_control.key",
            "etc/dbconfig-common/app.conf",
            "var/lib/mysql/ibdata1",
            "var/lib/rabbitmq/.erlang.cookie",
            "etc/postgresql/15/main/postgresql.conf",
        ] {
            assert!(matches!(judge(path), Verdict::Told(_)), "{path}");
        }
    }

    #[test]
    fn bookkeeping_goes_without_a_word() {
        for path in [
            "var/lib/dpkg/status",
            "etc/passwd-",
            "etc/rc3.d/S01nginx",
            "etc/systemd/system/multi-user.target.wants/nginx.service",
            "etc/foo.ucf-old",
            "var/log/dpkg.log",
        ] {
            assert_eq!(judge(path), Verdict::Quiet, "{path}");
        }
    }

    #[test]
    fn what_programs_need_stays() {
        for path in [
            "etc/passwd",
            "etc/shadow",
            "var/lib/mysql",
            "var/lib/postgresql",
            "etc/ssh/sshd_config",
            "etc/alternatives/java",
            "etc/rc.local",
            "etc/nginx/sites-enabled/default",
            "etc/ssl/private",
            "etc/unbound/unbound.conf",
            "etc/dbconfig-common/config",
            "var/log/nginx/access.log",
            "etc/ssl/certs/java/cacerts",
            "run/lock",
        ] {
            assert_eq!(judge(path), Verdict::Kept, "{path}");
        }
    }
}
