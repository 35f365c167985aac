//! A store of its own with the machine's root in it, and plans made by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use layerize::build::{BuildError, BuildOptions, ScriptFailure, realise};
use layerize::derive::{Action, BuildPlan, Derivation, Input, Script};
use layerize::event::{Event, Reporter};
use layerize::store::Store;
use layerize::store_path::{StoreDir, StorePath};

use super::root;

/// Keeps what is reported.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<Event>>);

impl Reporter for Recorder {
    fn report(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Recorder {
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let lines = events.iter().filter_map(|event| match event {
            Event::BuildOutput { line, .. } => Some(line.clone()),
            _ => None,
        });
        lines.collect()
    }

    pub fn started(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let names = events.iter().filter_map(|event| match event {
            Event::BuildStarted { name, .. } => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }

    pub fn warnings(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let texts = events.iter().filter_map(|event| match event {
            Event::Warning { text } => Some(text.clone()),
            _ => None,
        });
        texts.collect()
    }
}

/// The store's directory: what overlay options would take for separators must not matter.
pub const STORE: &str = "store: a,b\\c=";

/// A store of its own with the machine's root in it.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub store: Store,
    pub root: Input,
    pub options: BuildOptions,
    pub recorder: Recorder,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Read-only trees, which the temporary directory's own removal does not manage for ordinary users.
        let _ = layerize::fsio::remove_tree(&self.dir.path().join(STORE));
    }
}

impl Fixture {
    pub fn new() -> Self {
        Self::below(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// In a new directory below `parent`.
    pub fn below(parent: &Path) -> Self {
        let dir = tempfile::tempdir_in(parent).unwrap();
        let store = Store::open(&dir.path().join(STORE)).unwrap();
        let root = store.add_tree("machine", &root::machine_root()).unwrap();
        let options = BuildOptions {
            helper: Some(env!("CARGO_BIN_EXE_layerize").into()),
            cores: 3,
            ..BuildOptions::default()
        };
        Self {
            dir,
            root: Input::Path(root.path),
            store,
            options,
            recorder: Recorder::default(),
        }
    }

    /// Opens the store anew, as another run would: nothing is in use any more.
    pub fn reopen(&mut self) {
        let aside = Store::open(&self.dir.path().join("aside")).unwrap();
        drop(std::mem::replace(&mut self.store, aside));
        self.store = Store::open(&self.dir.path().join(STORE)).unwrap();
    }

    pub fn script(&self, script: &str) -> Script {
        Script {
            script: script.to_owned(),
            system: "x86_64-linux".to_owned(),
            root: vec![self.root.clone()],
            ..Script::default()
        }
    }

    /// Adds a tree of texts to the store.
    pub fn tree(&self, name: &str, files: &[(&str, &str)]) -> Input {
        let dir = self.dir.path().join("tree");
        for (path, text) in files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let info = self.store.add_tree(name, &dir).unwrap();
        fs::remove_dir_all(dir).unwrap();
        Input::Path(info.path)
    }

    pub fn plan(&self, scripts: Vec<(&str, Script)>) -> BuildPlan {
        let steps = scripts.into_iter().map(|(name, script)| Derivation {
            label: name.to_owned(),
            name: format!("{name}-1"),
            action: Action::Script(Box::new(script)),
        });
        BuildPlan {
            steps: steps.collect(),
            ..BuildPlan::default()
        }
    }

    pub fn realise(&self, plan: &BuildPlan) -> Result<BTreeMap<Input, StorePath>, BuildError> {
        let last = Input::Step(plan.steps.len() - 1);
        realise(&self.store, plan, &[last], &self.options, &self.recorder)
    }

    /// Builds one script; gives where its output is.
    pub fn build(&self, script: Script) -> Result<StorePath, BuildError> {
        let plan = self.plan(vec![("pkg", script)]);
        Ok(self.realise(&plan)?[&Input::Step(0)].clone())
    }

    #[track_caller]
    pub fn fails(&self, script: Script) -> ScriptFailure {
        match self.build(script).unwrap_err() {
            BuildError::Script(failure) => *failure,
            other => panic!("{other:?}"),
        }
    }

    pub fn read(&self, path: &StorePath, below: &str) -> String {
        fs::read_to_string(self.store.physical(path).join(below)).unwrap()
    }
}

pub fn logical(path: &StorePath) -> String {
    StoreDir::layerize().join(path)
}
