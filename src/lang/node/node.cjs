// Lays out, runs and installs a Node project: node.cjs COMMAND, in the source's directory, by the plan beside it
'use strict';
const fs = require('fs');
const path = require('path');
const { spawnSync } = require('child_process');

const plan = JSON.parse(fs.readFileSync(path.join(__dirname, 'plan.json'), 'utf8'));
const NODE = '/usr/bin/node';
const LAID = path.join(__dirname, 'laid');
const PROGRAMS = path.join(__dirname, 'bin');
// What is beside sources and no part of a program: records of version control, and npm's logins.
const HIDDEN = new Set(['.git', '.hg', '.svn', '.npmrc', 'node_modules']);

function fail(message, help) {
  process.stderr.write(`${message}\nhelp: ${help}\n`);
  process.exit(1);
}

function there(file) {
  return fs.lstatSync(file, { throwIfNoEntry: false });
}

function names(dir) {
  return fs.readdirSync(dir).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

// Copies what the store has, or the source: files get the modes of new ones, whatever the umask
function copy(from, to, leftOut = () => false) {
  const status = fs.lstatSync(from);
  if (status.isSymbolicLink()) {
    fs.symlinkSync(fs.readlinkSync(from), to);
  } else if (status.isDirectory()) {
    if (!there(to)) fs.mkdirSync(to);
    fs.chmodSync(to, 0o755);
    for (const name of names(from)) {
      if (!leftOut(from, name)) copy(path.join(from, name), path.join(to, name), leftOut);
    }
  } else if (status.isFile()) {
    fs.copyFileSync(from, to, fs.constants.COPYFILE_FICLONE);
    fs.chmodSync(to, status.mode & 0o111 ? 0o755 : 0o644);
  }
}

// The `node_modules` that a place is in
function modulesOf(at) {
  return at.slice(0, at.lastIndexOf('node_modules') + 'node_modules'.length);
}

function makeParents(file) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
}

// Links to programs as npm makes them: of two of one name the first package in this order has it
function linkPrograms(root, packages) {
  const taken = new Set();
  for (const { at, bins, readsBins } of [...packages].sort((a, b) => a.at.localeCompare(b.at, 'en'))) {
    const dir = path.join(root, at);
    const own = readsBins && there(path.join(dir, 'package.json')) ? programsOf(manifest(dir)) : bins || {};
    for (const [name, target] of Object.entries(own)) {
      const link = path.join(root, modulesOf(at), '.bin', name);
      const file = path.join(root, at, target);
      if (taken.has(link)) continue;
      taken.add(link);
      if (!there(file) || there(link)) continue;
      makeParents(link);
      fs.symlinkSync(path.relative(path.dirname(link), file), link);
      if (fs.statSync(file).isFile()) fs.chmodSync(file, 0o755);
    }
  }
}

// The programs that a package says it has: names without directories, paths that do not lead out
function programsOf({ name: own, bin }) {
  const named = typeof bin === 'string' ? { [own || '']: bin } : bin || {};
  const normal = ([name, target]) => [
    path.posix.basename(name.replace(/[\\:]/g, '/')),
    path.posix.join('/', String(target).replace(/\\/g, '/')).slice(1),
  ];
  return Object.fromEntries(Object.entries(named).map(normal).filter(([name, target]) => !/^\.{0,2}$/.test(name) && target));
}

// What is mounted cannot be removed, and what is in it can
function clear(dir) {
  const status = there(dir);
  if (!status || !status.isDirectory()) return fs.rmSync(dir, { force: true });
  for (const name of names(dir)) fs.rmSync(path.join(dir, name), { recursive: true, force: true });
}

// What is published was made ready by `prepare`; a repository is not
function checkPrepared(at, dir) {
  const { name, scripts } = manifest(dir);
  if ((scripts || {}).prepare === undefined) return;
  fail(
    `${at} comes from a git repository, and its script \`prepare\` (${scripts.prepare}) makes what it needs`,
    `\`node = { scripts = ["${name}"] }\` has it run, with what the package depends on but for development; or depend on a ` +
      'published version',
  );
}

function lay(root, packages) {
  const cleared = new Set();
  for (const { at } of packages) {
    // What the source has of its own is not what the lock file says.
    const outermost = at.slice(0, at.indexOf('node_modules') + 'node_modules'.length);
    if (!cleared.has(outermost)) clear(path.join(root, outermost));
    cleared.add(outermost);
  }
  // Packages around others come first.
  for (const { at, from, below, link, repository, scripts } of packages) {
    const dest = path.join(root, at);
    if (link !== undefined) {
      makeParents(dest);
      fs.rmSync(dest, { recursive: true, force: true });
      fs.symlinkSync(path.relative(path.dirname(dest), path.join(root, link)) || '.', dest);
    } else if (from !== undefined) {
      makeParents(dest);
      fs.rmSync(dest, { recursive: true, force: true });
      copy(path.join(process.env[from], below || ''), dest);
      if (repository && !scripts) checkPrepared(at, dest);
    }
  }
  linkPrograms(root, packages);
}

// A shell may be anywhere; scripts are in the source
function project() {
  return path.resolve(process.env.LAYERIZE_SOURCE || '.', plan.dir || '.');
}

function manifest(dir) {
  const text = fs.readFileSync(path.join(dir, 'package.json'), 'utf8');
  return JSON.parse(text.replace(/^\uFEFF/, ''));
}

// Runs a script as npm does: with what the packages around it bring on the path, and what is said of the package
function runScript(dir, name, text, further = []) {
  const about = manifest(dir);
  const search = [];
  for (let above = dir; ; above = path.dirname(above)) {
    if (path.basename(above) !== 'node_modules') search.push(path.join(above, 'node_modules', '.bin'));
    if (path.dirname(above) === above) break;
  }
  const words = further.map((word) => `'${word.replace(/'/g, `'\\''`)}'`);
  const env = {
    ...process.env,
    PATH: [...search, ...(hasNpm() ? [] : [PROGRAMS]), process.env.PATH].join(':'),
    HOME: process.env.HOME || process.env.TMPDIR || '/build',
    INIT_CWD: process.env.INIT_CWD || dir,
    NODE: NODE,
    npm_node_execpath: NODE,
    npm_lifecycle_event: name,
    npm_lifecycle_script: text,
    npm_package_json: path.join(dir, 'package.json'),
    npm_package_name: about.name || '',
    npm_package_version: about.version || '',
  };
  process.stderr.write(`\n> ${about.name || ''}@${about.version || ''} ${name}\n> ${text}\n\n`);
  const { status, signal, error } = spawnSync('sh', ['-c', [text, ...words].join(' ')], { cwd: dir, env, stdio: 'inherit' });
  if (error) throw error;
  if (status !== 0) {
    process.stderr.write(`the script \`${name}\` of ${dir} failed (${signal || `exit status ${status}`})\n`);
    process.exit(status || 1);
  }
}

function run(dir, name, further, isWanted = true) {
  const scripts = manifest(dir).scripts || {};
  if (scripts[name] === undefined) {
    if (name === 'start' && there(path.join(dir, 'server.js'))) return runScript(dir, name, 'node server.js', further);
    if (!isWanted) return;
    fail(`${dir} has no script \`${name}\``, `its scripts are ${Object.keys(scripts).join(', ') || 'none'}`);
  }
  if (scripts[`pre${name}`] !== undefined) runScript(dir, `pre${name}`, scripts[`pre${name}`]);
  runScript(dir, name, scripts[name], further);
  if (scripts[`post${name}`] !== undefined) runScript(dir, `post${name}`, scripts[`post${name}`]);
}

function hasNpm() {
  return (process.env.PATH || '').split(':').some((dir) => dir !== PROGRAMS && there(path.join(dir, 'npm')));
}

// Scripts call npm: what of it needs no network is done here, so that a build need not have all of it
function makePrograms() {
  fs.mkdirSync(PROGRAMS, { recursive: true });
  for (const name of ['npm', 'npx', 'pnpm', 'yarn']) {
    const file = path.join(PROGRAMS, name);
    fs.writeFileSync(file, `#!/bin/sh\nexec ${NODE} '${__filename}' ${name} "$@"\n`);
    fs.chmodSync(file, 0o755);
  }
}

// The directories of the project that are packages of their own
function members() {
  const linked = plan.packages.filter(({ link }) => link !== undefined);
  return linked.map(({ link }) => path.join(project(), link));
}

function npm(program, words) {
  const own = [];
  const wanted = { dirs: [process.cwd()], isWanted: true };
  const rest = [];
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index];
    const value = () => (word.includes('=') ? word.slice(word.indexOf('=') + 1) : words[(index += 1)]);
    if (word === '--') {
      rest.push(...words.slice(index + 1));
      break;
    } else if (own.length > 1 && program !== 'npm') {
      rest.push(...words.slice(index));
      break;
    } else if (/^(-w|--workspace)(=|$)/.test(word)) {
      const name = value();
      wanted.dirs = members().filter((dir) => manifest(dir).name === name || dir === path.join(project(), name || ''));
      if (wanted.dirs.length === 0) fail(`no member of the workspace is called \`${name}\``, 'name one of them');
    } else if (/^(-ws|--workspaces)$/.test(word)) {
      wanted.dirs = members();
    } else if (/^--prefix(=|$)/.test(word)) {
      wanted.dirs = [path.resolve(value())];
    } else if (word === '--if-present') {
      wanted.isWanted = false;
    } else if (program === 'npx' && !word.startsWith('-')) {
      own.push('exec', word);
      rest.push(...words.slice(index + 1));
      break;
    } else if (!word.startsWith('-')) {
      own.push(word);
    }
  }
  let [verb, name, ...more] = own;
  if (verb === 'test' || verb === 'start' || verb === 'stop' || verb === 'restart') {
    [verb, name, more] = ['run', verb, name === undefined ? more : [name, ...more]];
  } else if (program !== 'npm' && program !== 'npx' && verb !== 'run' && verb !== 'exec') {
    [verb, name, more] = ['run', verb, name === undefined ? more : [name, ...more]];
  }
  if ((verb === 'run' || verb === 'run-script' || verb === 'rum' || verb === 'urn') && name !== undefined) {
    for (const dir of wanted.dirs) run(dir, name, [...more, ...rest], wanted.isWanted);
  } else if ((verb === 'exec' || verb === 'x') && name !== undefined) {
    for (const dir of wanted.dirs) runScript(dir, 'npx', name, [...more, ...rest]);
  } else {
    fail(
      `\`${[program, ...words].join(' ')}\` needs the whole of npm`,
      'add "deb:npm" to the package\'s `tools`; what npm installs, layerize has laid out before',
    );
  }
}

// Runs the install scripts of packages that are named for it, what they need first, and keeps what they made of these
function scripts(out) {
  const root = path.join(__dirname, 'root');
  fs.mkdirSync(root);
  fs.writeFileSync(path.join(root, 'package.json'), '{}\n');
  lay(root, plan.packages);
  makePrograms();
  const named = plan.packages.filter((placed) => placed.scripts);
  for (const { at, repository } of inOrder(root, named)) {
    const dir = path.join(root, at);
    const own = manifest(dir).scripts || {};
    const implied = { install: 'node-gyp rebuild' };
    const has = own.install !== undefined || own.preinstall !== undefined;
    const all = !has && there(path.join(dir, 'binding.gyp')) ? { ...implied, ...own } : own;
    for (const name of [...(repository ? ['prepare'] : []), 'preinstall', 'install', 'postinstall']) {
      if (all[name] !== undefined) runScript(dir, name, all[name]);
    }
  }
  for (const { at } of named) {
    // What is nested in another one comes with that.
    if (named.some((other) => at.startsWith(`${other.at}/`))) continue;
    makeParents(path.join(out, at));
    copy(path.join(root, at), path.join(out, at));
  }
}

// Packages after those that they need, as far as that can be had
function inOrder(root, packages) {
  const places = new Map(packages.map((placed) => [path.join(root, placed.at), placed]));
  const done = new Set();
  const ordered = [];
  const visit = (dir) => {
    if (done.has(dir)) return;
    done.add(dir);
    const { dependencies, optionalDependencies } = manifest(dir);
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies }).sort()) {
      for (let above = dir; above.length >= root.length; above = path.dirname(above)) {
        const found = path.join(above, 'node_modules', name);
        if (there(path.join(found, 'package.json'))) {
          visit(found);
          break;
        }
      }
    }
    if (places.has(dir)) ordered.push(places.get(dir));
  };
  for (const dir of places.keys()) visit(dir);
  return ordered;
}

// Takes away what only the build needed, and the links to its programs
function prune(root) {
  for (const { at, kept } of plan.packages) {
    if (!kept) fs.rmSync(path.join(root, at), { recursive: true, force: true });
  }
  for (const dir of new Set(plan.packages.map(({ at }) => modulesOf(at)))) {
    const modules = path.join(root, dir);
    fs.rmSync(path.join(modules, '.bin'), { recursive: true, force: true });
    if (!there(modules)) continue;
    for (const name of names(modules)) removeEmpty(path.join(modules, name), name.startsWith('@'));
    removeEmpty(modules, true);
    // pnpm has a directory for each package around its `node_modules`.
    const around = path.dirname(modules);
    if (path.basename(path.dirname(around)) === '.pnpm') removeEmpty(around, true);
  }
  linkPrograms(root, plan.packages.filter(({ kept }) => kept));
}

function removeEmpty(dir, isGroup) {
  if (isGroup && there(dir).isDirectory() && names(dir).length === 0) fs.rmdirSync(dir);
}

function install(out) {
  const dest = path.join(out, 'lib', plan.name);
  makeParents(dest);
  const isLaid = there(LAID);
  const root = project();
  const own = new Set(plan.packages.map(({ at }) => path.join(root, modulesOf(at))));
  if (isLaid) prune(root);
  const source = path.resolve('.');
  const leftOut = (dir, name) => {
    const file = path.join(dir, name);
    if (name === 'node_modules') return !(isLaid && own.has(file)) && (own.has(file) || dir === root || dir === source);
    return dir === source && HIDDEN.has(name);
  };
  copy(source, dest, leftOut);
  const home = path.join(dest, plan.dir);
  if (!isLaid) lay(home, plan.packages.filter(({ kept }) => kept));
  if (there(path.join(home, '.npmrc'))) fs.rmSync(path.join(home, '.npmrc'));
  makeStarters(out, home);
}

// The project's own programs, and what starts it
function makeStarters(out, home) {
  const about = manifest(home);
  const bin = path.join(out, 'bin');
  fs.mkdirSync(bin, { recursive: true });
  for (const [name, target] of Object.entries(programsOf(about))) {
    const file = path.join(home, target);
    if (!there(file) || !fs.statSync(file).isFile()) {
      fail(
        `\`bin\` of package.json names \`${target}\`, which is not there`,
        'if a script makes it, name that script: node = { build = "build" }',
      );
    }
    if (!makeProgram(file)) {
      writeStarter(path.join(bin, name), { file, words: [], env: {}, flags: [] }, home, false);
      continue;
    }
    fs.symlinkSync(path.relative(bin, file), path.join(bin, name));
  }
  const starter = path.join(bin, plan.name);
  if (there(starter)) return;
  const start = startOf(about, home);
  if (start) writeStarter(starter, start, home, true);
  else process.stderr.write(`note: nothing in package.json says how it is started: \`bin\` has no \`${plan.name}\`\n`);
}

// Names Node where it is, as images have no `env`; false where no line says what the file is run by
function makeProgram(file) {
  const text = fs.readFileSync(file);
  const end = text.indexOf(10);
  const line = text.subarray(0, end < 0 ? text.length : end).toString('latin1');
  if (!line.startsWith('#!')) return false;
  const named = /^#!\s*(?:\/usr\/bin\/env\s+(?:-S\s+)?|\/(?:usr\/)?(?:local\/)?bin\/)node(?:js)?\s*(.*?)\s*$/.exec(line);
  if (named) {
    const first = `#!${NODE}${named[1] ? ` ${named[1]}` : ''}`;
    fs.writeFileSync(file, Buffer.concat([Buffer.from(first, 'latin1'), end < 0 ? Buffer.from('\n') : text.subarray(end)]));
  }
  fs.chmodSync(file, 0o755);
  return true;
}

// What `npm start` does, where that is one program with arguments; else what `main` names
function startOf(about, home) {
  const isFile = (file) => Boolean(there(file)) && fs.statSync(file).isFile();
  let text = (about.scripts || {}).start;
  for (let count = 0; count < 8 && text !== undefined; count += 1) {
    const called = /^(?:npm|pnpm|yarn)(?:\s+run(?:-script)?)?\s+([\w:.-]+)$/.exec(text.trim());
    if (!called) break;
    text = (about.scripts || {})[called[1]];
  }
  const found = text === undefined ? undefined : commandOf(text, home, isFile);
  if (found) return found;
  for (const file of ['server.js', about.main, 'index.js']) {
    if (typeof file !== 'string') continue;
    const tried = [file, `${file}.js`, path.join(file, 'index.js')].map((name) => path.join(home, name));
    const one = tried.find(isFile);
    if (one) return { file: one, words: [], env: {}, flags: [] };
  }
  return undefined;
}

function commandOf(text, home, isFile) {
  const words = [];
  const pattern = /\s*(?:'([^']*)'|"([^"$`\\]*)"|([^\s'"$`\\&|;<>()*?[\]#~]+))(?=\s|$)/y;
  const trimmed = text.trim();
  while (pattern.lastIndex < trimmed.length) {
    const match = pattern.exec(trimmed);
    if (!match) return undefined;
    words.push(match[1] ?? match[2] ?? match[3]);
  }
  const env = {};
  const assigned = () => /^([A-Za-z_]\w*)=(.*)$/.exec(words[0] || '');
  if (words[0] === 'cross-env') words.shift();
  for (let match = assigned(); match; match = assigned()) {
    env[match[1]] = match[2];
    words.shift();
  }
  const program = words.shift();
  const flags = [];
  if (program === 'node' || program === 'nodejs') {
    while ((words[0] || '').startsWith('-')) {
      const flag = words.shift();
      const takesOne = /^(-r|-C|--require|--import|--loader|--experimental-loader|--conditions|--env-file|--title)$/.test(flag);
      flags.push(takesOne && words.length > 0 ? `${flag}${flag.startsWith('--') ? '=' : ' '}${words.shift()}` : flag);
    }
    const file = path.resolve(home, words.shift() || '.');
    const one = [file, `${file}.js`, path.join(file, 'index.js')].find(isFile);
    return one && { file: one, words, env, flags };
  }
  if (program === undefined) return undefined;
  const link = path.join(home, 'node_modules', '.bin', program);
  if (!there(link) || !isFile(link)) return undefined;
  const file = fs.realpathSync(link);
  const line = fs.readFileSync(file).subarray(0, 128).toString('latin1').split('\n')[0];
  return /^#!.*\bnode\b/.test(line) ? { file, words, env, flags } : undefined;
}

// A program that becomes another one: where that is Node has found out by the time it runs, and no shell is needed
function writeStarter(starter, { file, words, env, flags }, home, isStart) {
  const relative = (to) => JSON.stringify(path.relative(path.dirname(starter), to));
  const first = flags.length > 1 ? `#!/usr/bin/env -S ${NODE} ${flags.join(' ')}` : [`#!${NODE}`, ...flags].join(' ');
  const lines = [first, `'use strict';`, `const path = require('path');`];
  const argv = [`path.join(__dirname, ${relative(file)})`, ...words.map((word) => JSON.stringify(word))];
  lines.push(`process.argv.splice(1, 1, ${argv.join(', ')});`);
  if (Object.keys(env).length > 0) lines.push(`Object.assign(process.env, ${JSON.stringify(env)});`);
  if (isStart) lines.push(`process.chdir(path.join(__dirname, ${relative(home)}));`);
  lines.push(`require('module').runMain();`);
  fs.writeFileSync(starter, `${lines.join('\n')}\n`);
  fs.chmodSync(starter, 0o755);
}

// Of an installed project what is not in the packages as their tarballs have them, to stand in a directory of an image
function rest(installed, out, at) {
  const home = path.join(installed, 'lib', plan.name);
  const dest = path.join(out, at);
  const plain = new Map();
  for (const { at: place, from, below, kept } of plan.packages) {
    if (!kept || from === undefined || below !== undefined) continue;
    const root = path.join(plan.dir, place);
    const visit = (dir) => {
      for (const name of names(path.join(process.env[from], dir))) {
        const file = path.join(process.env[from], dir, name);
        if (fs.lstatSync(file).isDirectory()) visit(path.join(dir, name));
        else plain.set(path.join(root, dir, name), file);
      }
    };
    visit('');
  }
  const changed = (file) =>
    fail(
      `the build changed \`${file}\`, which an image has as it was published where it lays the project out`,
      'name the project in `contents` in place of `lay`, or keep its build from changing what it needs',
    );
  const same = (one, other) => {
    const [a, b] = [one, other].map((file) => fs.lstatSync(file, { throwIfNoEntry: false }));
    if (!a || !b || !a.isFile() || a.size !== b.size || (a.mode & 0o111) !== (b.mode & 0o111)) return false;
    return fs.readFileSync(one).equals(fs.readFileSync(other));
  };
  for (const [file, published] of plain) {
    if (!same(path.join(home, file), published)) changed(file);
  }
  const visit = (dir) => {
    for (const name of names(path.join(home, dir))) {
      const file = path.join(dir, name);
      if (plain.has(file)) continue;
      if (fs.lstatSync(path.join(home, file)).isDirectory()) {
        visit(file);
      } else {
        makeParents(path.join(dest, file));
        copy(path.join(home, file), path.join(dest, file));
      }
    }
  };
  fs.mkdirSync(dest, { recursive: true });
  visit('');
  const bin = path.join(out, 'usr', 'local', 'bin');
  fs.mkdirSync(bin, { recursive: true });
  const moved = (to) => path.posix.join(path.relative(bin, dest), path.posix.relative(path.posix.join('../lib', plan.name), to));
  for (const name of names(path.join(installed, 'bin'))) {
    const program = path.join(installed, 'bin', name);
    if (fs.lstatSync(program).isSymbolicLink()) {
      fs.symlinkSync(moved(fs.readlinkSync(program)), path.join(bin, name));
    } else {
      const text = fs.readFileSync(program, 'utf8');
      const move = (_, to) => `__dirname, ${JSON.stringify(moved(JSON.parse(to)))}`;
      fs.writeFileSync(path.join(bin, name), text.replace(/__dirname, ("(?:[^"\\]|\\.)*")/g, move));
      fs.chmodSync(path.join(bin, name), 0o755);
    }
  }
}

const [command, ...words] = process.argv.slice(2);
switch (command) {
  case 'lay':
    lay(project(), plan.packages);
    fs.writeFileSync(LAID, '');
    break;
  case 'shell':
    lay(project(), plan.packages);
    makePrograms();
    break;
  case 'build':
    makePrograms();
    if (plan.build) run(project(), plan.build, []);
    break;
  case 'scripts':
    scripts(words[0]);
    break;
  case 'install':
    install(words[0]);
    break;
  case 'rest':
    rest(words[0], words[1], words[2]);
    break;
  default:
    npm(command, words);
}
