//! `layerize serve`: the images of the spec as a registry.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::Args;

use super::complete;
use super::context::Context;
use super::error::{self, advised};
use super::flags::{BuildFlags, PlatformOrAll, value};
use super::outcome::Outcome;
use super::places::Names;
use crate::attest::SbomFormat;
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::fsio::read_limited;
use crate::image::Listed;
use crate::oci::{Artifact, Compression, DEFAULT_TAG};
use crate::project::documents::{DocumentOptions, Documents};
use crate::project::{self, ImageOptions, NamedImage, PlatformChoice, Project, Target, Work, WorkOptions, work};
use crate::serve::{Answered, Failure, Hosts, Secure, ServeOptions, ServedName, Stock, Token, serve};

/// Largest file of a token that is read, in bytes.
const TOKEN_SIZE_MAX: u64 = 4096;

/// Longest text about a failure that a client is told, in characters.
const FAILURE_MAX: usize = 4000;

/// Arguments of `layerize serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Images of the spec that are served [default: all]
    #[arg(value_name = "NAME", add = complete::images())]
    images: Vec<String>,
    /// Address to listen on; port 0 takes a free one. Others than those of this machine need a token
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// File with the token that clients show as the password of any user [default: none on loopback, elsewhere one is made]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Name by which clients may call the registry, besides those of loopback; repeatable. With a token any will do
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// File with a certificate (PEM), and those of authorities between: clients speak TLS then
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// File with the certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// gzip[:LEVEL], zstd[:LEVEL] or none [default: the spec's, else gzip]
    #[arg(long, value_name = "HOW", value_parser = value::<Compression>)]
    compression: Option<Compression>,
    /// Serve only images for these platforms, separated by commas [default: all]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = value::<PlatformOrAll>)]
    platform: Vec<PlatformOrAll>,
    #[command(flatten)]
    flags: BuildFlags,
}

impl ServeArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Several(&mut self.images), &mut self.flags)
    }
}

/// Serves until it is interrupted.
pub fn run(args: &ServeArgs, context: &Context) -> anyhow::Result<Outcome> {
    let token = token(args, context)?;
    let context = &context.with_spec_found()?;
    let project = Project::load(&context.environment)?;
    if project.workspace.images.is_empty() {
        return Err(advised(
            "the spec has no image",
            "add `[image.NAME]` with `contents` to it",
        ));
    }
    for name in &args.images {
        if !matches!(project::target::name(name, &project)?, Target::Image(_)) {
            return Err(advised(
                format!("`{name}` is no image, and images are served"),
                "name an image of the spec; a store path is pulled by its own name",
            ));
        }
    }
    let listener = TcpListener::bind(args.listen).map_err(|source| unbound(args.listen, &source))?;
    let address = listener.local_addr().context("cannot tell the address")?;
    let options = ServeOptions {
        hosts: match token {
            Some(_) => Hosts::any(),
            None => Hosts::of_loopback_and(args.hosts.iter().cloned()),
        },
        token,
        secure: secure(args)?,
        ..ServeOptions::new(Arc::new(crate::http::is_cancelled))
    };
    let registry = Registry {
        context,
        address,
        images: args.images.iter().cloned().collect(),
        work: args
            .flags
            .options_for(PlatformOrAll::choice(&args.platform, PlatformChoice::All)),
        image: ImageOptions {
            compression: args.compression,
            ..ImageOptions::default()
        },
        told: Mutex::default(),
    };
    for name in registry.names_of(&project) {
        context
            .ui
            .note(&format!("docker pull {address}/{}:{}", name.repository, name.tag));
    }
    match context.ui.json() {
        true => context.ui.report(Event::Serving {
            address: address.to_string(),
        }),
        false => context.ui.data(&address.to_string())?,
    }
    serve(listener, &registry, &options).context("the registry cannot be run")?;
    context.ui.clear();
    Ok(Outcome::Ended)
}

/// What encrypts, where that is asked for.
fn secure(args: &ServeArgs) -> anyhow::Result<Option<Secure>> {
    let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) else {
        return Ok(None);
    };
    let secure = Secure::read(certificate, key);
    Ok(Some(secure.context("the registry cannot speak TLS")?))
}

fn unbound(address: SocketAddr, source: &std::io::Error) -> anyhow::Error {
    let help = match source.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "another program listens there: `--listen {}:0` takes a free port",
            address.ip()
        ),
        std::io::ErrorKind::PermissionDenied => "ports below 1024 are for root: take another one".to_owned(),
        _ => "name an address of this machine, such as `--listen 127.0.0.1:5000`".to_owned(),
    };
    advised(format!("cannot listen on {address}: {source}"), help)
}

/// The token that clients must show; elsewhere than on loopback there always is one.
fn token(args: &ServeArgs, context: &Context) -> anyhow::Result<Option<Token>> {
    let ip = args.listen.ip().to_canonical();
    if let Some(file) = &args.token_file {
        let text = String::from_utf8(read_limited(file, TOKEN_SIZE_MAX)?).unwrap_or_default();
        let token = Token::parse(&text).map_err(|source| {
            let message = format!("`{}` holds no token: {source}", file.display());
            advised(message, "make one: `openssl rand -hex 24 > FILE`")
        })?;
        return Ok(Some(token));
    }
    if ip.is_loopback() {
        return Ok(None);
    }
    let token = Token::generate()?;
    let encryption = match args.tls_cert {
        Some(_) => "",
        None => ", without encryption",
    };
    let text = format!(
        "others can reach {ip}{encryption}: they log in with any name and the password {}",
        token.secret()
    );
    context.ui.report(Event::Warning { text });
    Ok(Some(token))
}

/// The names of all images of a spec: each by its name with its own tag and `latest`, a debug image also beside the image
/// that it is of.
fn names(project: &Project) -> Vec<ServedName> {
    let mut names = BTreeSet::new();
    for (image, spec) in &project.workspace.images {
        for (repository, tag) in [
            (image.as_str(), spec.tag.as_str()),
            (image.as_str(), DEFAULT_TAG),
            (spec.spec_name(), spec.tag.as_str()),
        ] {
            names.insert(ServedName {
                repository: repository.to_owned(),
                tag: tag.to_owned(),
                image: image.clone(),
            });
        }
    }
    names.into_iter().collect()
}

/// The images of the spec, made as `build` makes them.
struct Registry<'a> {
    context: &'a Context<'a>,
    address: SocketAddr,
    /// Those that are served; all where there are none.
    images: BTreeSet<String>,
    work: WorkOptions,
    image: ImageOptions,
    /// What each image was when it was told of last.
    told: Mutex<BTreeMap<String, Digest>>,
}

impl Registry<'_> {
    fn names_of(&self, project: &Project) -> Vec<ServedName> {
        let mut all = names(project);
        all.retain(|name| self.images.is_empty() || self.images.contains(&name.image));
        all
    }

    fn made(&self, image: &str) -> anyhow::Result<(Work, NamedImage)> {
        let environment = &self.context.environment;
        let work = work::prepare(&[image.to_owned()], &self.work, environment)?;
        let made = project::images(&work, &self.image, environment)?.pop();
        let named = made.with_context(|| format!("`{image}` is no image of the spec any more"))?;
        Ok((work, named))
    }

    fn documents_of(&self, image: &str, digest: &Digest) -> anyhow::Result<Vec<Artifact>> {
        let (work, all) = self.made(image)?;
        let Some(named) = all.each().find(|part| part.image.digest() == *digest) else {
            return Ok(Vec::new());
        };
        let options = DocumentOptions {
            sboms: vec![SbomFormat::Spdx, SbomFormat::CycloneDx],
            provenance: true,
            ..DocumentOptions::default()
        };
        let documents = Documents::new(named, work.of(&named.draft)).all(&options)?;
        Ok(documents.iter().map(|document| document.artifact(named)).collect())
    }

    /// Tells of an image that is another than before.
    fn tell(&self, image: &str, named: &NamedImage) {
        let digest = match &named.index {
            Some(index) => index.digest(),
            None => named.image.digest(),
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(named.name.clone(), digest) != Some(digest) {
            self.context.ui.report(Event::ImageServed {
                name: named.name.clone(),
                digest: digest.to_string(),
                references: match image.strip_prefix('/') {
                    Some(path) => vec![format!("{}/{path}:{DEFAULT_TAG}", self.address)],
                    None => {
                        let names = named.names.iter();
                        names.map(|name| format!("{}/{name}", self.address)).collect()
                    }
                },
            });
        }
    }

    /// Shows a failure here, and says what clients are told of it.
    fn failed(&self, error: &anyhow::Error) -> Failure {
        error::show(error, self.context.ui);
        let text = error::plain(error);
        Failure {
            text: text.chars().take(FAILURE_MAX).collect(),
        }
    }
}

impl Stock for Registry<'_> {
    fn names(&self) -> Result<Vec<ServedName>, Failure> {
        let project = Project::load(&self.context.environment);
        project
            .map(|project| self.names_of(&project))
            .map_err(|error| self.failed(&error.into()))
    }

    fn image(&self, image: &str) -> Result<Listed, Failure> {
        let (_, named) = self.made(image).map_err(|error| self.failed(&error))?;
        self.tell(image, &named);
        Ok(match named.index {
            Some(index) => Listed::Index(index),
            None => Listed::Image(named.image),
        })
    }

    fn documents(&self, image: &str, digest: &Digest) -> Result<Vec<Artifact>, Failure> {
        self.documents_of(image, digest).map_err(|error| self.failed(&error))
    }

    fn answered(&self, answered: &Answered) {
        let Answered {
            client,
            method,
            path,
            status,
        } = answered.clone();
        self.context.ui.report(Event::Answered {
            client,
            method,
            path,
            status,
        });
    }

    fn rest(&self) {
        if let Err(error) = self.context.trim_layer_cache() {
            error::show(&error, self.context.ui);
        }
    }
}
