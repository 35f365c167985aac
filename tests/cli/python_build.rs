//! Source distributions of Python, built with what the spec declares.

use std::fs;

use layerize::digest::Digest;

use crate::python::{Wheel, has, layerize};
use crate::support::{Place, in_another_world};

const SPEC: &str = r#"[package.app]
source = { path = ".", include = ["app.py", "uv.lock"] }
python = { build = { native = BUILD } }

[image.app]
root = ["deb:python3"]
configure = false
contents = ["app"]
entrypoint = ["python", "-m", "app"]

[image.app.tests.says]
expect = { stdout = "7 made" }
"#;

/// C, setuptools, and a file that is made while it is built.
const SETUP: &str = "from setuptools import Extension, setup
open('native/made.txt', 'w').write('made')
setup(name='native', version='1.0', packages=['native'], package_data={'native': ['*.txt']},
      ext_modules=[Extension('native.seven', ['seven.c'])])
";

const SEVEN: &str = r#"#include <Python.h>
static PyObject *seven(PyObject *self, PyObject *none) { return PyLong_FromLong(7); }
static PyMethodDef methods[] = {{"seven", seven, METH_NOARGS, ""}, {0, 0, 0, 0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "seven", 0, -1, methods};
PyMODINIT_FUNC PyInit_seven(void) { return PyModule_Create(&module); }
"#;

/// A back end of the user's own, in a wheel: it copies what there is.
const BACKEND: &str = "import os, zipfile


def build_wheel(directory, config_settings=None, metadata_directory=None):
    info = 'native-1.0.dist-info'
    files = {f'{info}/WHEEL': 'Wheel-Version: 1.0\\nTag: py3-none-any\\n',
             f'{info}/METADATA': 'Metadata-Version: 2.1\\nName: native\\nVersion: 1.0\\n',
             'native/__init__.py': '', 'native/made.txt': 'made',
             'native/seven.py': 'def seven():\\n    return 7\\n'}
    import base64, hashlib
    digest = lambda text: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()
    record = ''.join(f'{name},sha256={digest(text)},\\n' for name, text in files.items()) + f'{info}/RECORD,,\\n'
    name = 'native-1.0-py3-none-any.whl'
    with zipfile.ZipFile(os.path.join(directory, name), 'w') as wheel:
        for path, text in [*files.items(), (f'{info}/RECORD', record)]:
            wheel.writestr(path, text)
    return name
";

/// Puts a source distribution of these files where pip looks, beside a wheel with the back end, and locks both.
fn publish(place: &Place, files: &[(&str, &str)]) {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive
            .append_data(&mut header, format!("native-1.0/{path}"), text.as_bytes())
            .unwrap();
    }
    let sdist = archive.into_inner().unwrap().finish().unwrap();
    let backend = Wheel {
        name: "backend",
        files: vec![("backend.py", BACKEND)],
        record: "",
    };
    let dir = place.project.join("wheels");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("native-1.0.tar.gz"), &sdist).unwrap();
    fs::write(dir.join(backend.file()), backend.bytes()).unwrap();
    let source = "source = { registry = \"https://index.invalid/simple\" }";
    let lock = format!(
        "version = 1\nrequires-python = \">=3.9\"\n\n[[package]]\nname = \"app\"\nversion = \"0.1\"\n\
         source = {{ virtual = \".\" }}\ndependencies = [{{ name = \"native\" }}]\n\n[package.dev-dependencies]\n\
         build = [{{ name = \"backend\" }}]\n\n[[package]]\nname = \"native\"\nversion = \"1.0\"\n{source}\n\
         sdist = {{ url = \"https://files.invalid/native-1.0.tar.gz\", hash = \"sha256:{}\" }}\n\n\
         [[package]]\nname = \"backend\"\nversion = \"1.0\"\n{source}\n\
         wheels = [{{ url = \"https://files.invalid/{}\", hash = \"sha256:{}\" }}]\n",
        Digest::of(&sdist).hex(),
        backend.file(),
        Digest::of(&backend.bytes()).hex()
    );
    place.write("uv.lock", &lock);
}

fn project(build: &str, files: &[(&str, &str)]) -> Place {
    let place = Place::new();
    place.write("layerize.toml", &SPEC.replace("BUILD", build)).write(
        "app.py",
        "import importlib.resources\nfrom native.seven import seven\n\
         print(seven(), importlib.resources.files('native').joinpath('made.txt').read_text())\n",
    );
    publish(&place, files);
    place
}

#[test]
fn c_is_compiled_by_debian_s_setuptools_and_is_the_same_elsewhere() {
    let build = r#"["deb:python3-setuptools", "deb:python3-wheel", "deb:gcc", "deb:python3-dev"]"#;
    let files = [("setup.py", SETUP), ("seven.c", SEVEN), ("native/__init__.py", "")];
    let place = project(build, &files);
    layerize(&place, &["lock"]).success();
    layerize(&place, &["test"]).success();
    let built = layerize(&place, &["build", "--locked"]).success();
    layerize(&place, &["check", "--locked"]).success();
    // Neither setuptools nor the compiler gets into the image.
    let closure = layerize(&place, &["closure", "app"]).success().stdout;
    assert_eq!(closure.lines().count(), 2, "{closure}");
    let sbom = layerize(&place, &["sbom", "app"]).success().stdout;
    assert!(sbom.contains("pkg:pypi/native@1.0"), "{sbom}");
    let (_world, again) = in_another_world(&place, &["build", "--locked", "--offline"]);
    assert_eq!(again.stdout, built.stdout);
}

#[test]
fn a_locked_back_end_builds_and_what_is_missing_is_named() {
    let wants = |requires: &str, backend: &str| {
        format!("[build-system]\nrequires = [{requires}]\nbuild-backend = \"{backend}\"\n")
    };
    let place = project(r#"["backend"]"#, &[]);
    layerize(&place, &["lock"]).success();
    let cases = [
        (
            wants("\"backend\", \"Cython>=3\"", "backend"),
            &["built with `cython`, which is not there", "\"native\" = [\"cython\""][..],
        ),
        (
            wants("\"backend\"", "hatchling.build"),
            &["back end `hatchling.build` cannot be imported", "\"hatchling\""],
        ),
        ("[build-system".to_owned(), &["`pyproject.toml` cannot be read"]),
    ];
    for (toml, said) in cases {
        publish(&place, &[("pyproject.toml", &toml)]);
        layerize(&place, &["build", "app"]).exits(2).says(said);
    }
    publish(&place, &[("README", "nothing to build\n")]);
    let none = ["neither `pyproject.toml` nor `setup.py`"];
    layerize(&place, &["build", "app"]).exits(2).says(&none);
    assert!(!has(&place.store(), "native-1.0-wheel") && !has(&place.store(), "native-1.0"));

    let toml = wants("\"backend\", 'other; python_version < \"3\"'", "backend");
    publish(&place, &[("pyproject.toml", &toml)]);
    layerize(&place, &["test"]).success();
    assert!(has(&place.store(), "native-1.0"));
}

/// C that is linked against a library of the system: the image must have it, and where it has not, its package is named.
#[test]
fn a_library_that_an_extension_module_lacks_is_told_with_its_package() {
    let build = r#"["deb:python3-setuptools", "deb:python3-wheel", "deb:gcc", "deb:python3-dev", "deb:libgmp-dev"]"#;
    let setup = SETUP.replace("['seven.c'])", "['seven.c'], libraries=['gmp'])");
    let seven = SEVEN
        .replace("#include <Python.h>", "#include <Python.h>\n#include <gmp.h>")
        .replace("PyLong_FromLong(7)", "PyLong_FromLong(gmp_version[0] ? 7 : 0)");
    let files = [
        ("setup.py", setup.as_str()),
        ("seven.c", seven.as_str()),
        ("native/__init__.py", ""),
    ];
    let place = project(build, &files);
    layerize(&place, &["lock"]).success();
    layerize(&place, &["build"]).exits(2).says(&[
        "native/seven.cpython-3",
        "`libgmp.so.10` is not in the image",
        "add `deb:libgmp10` to `root`",
    ]);
    assert!(!place.project.join("app.tar").exists());
    let spec = SPEC
        .replace("BUILD", build)
        .replace("[\"deb:python3\"]", "[\"deb:python3\", \"deb:libgmp10\"]");
    place.write("layerize.toml", &spec);
    layerize(&place, &["test"]).success();
}
