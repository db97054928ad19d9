//! Stages whose parts several processes make: shards, on this machine and as jobs of Slurm.

use crate::bench::{Bench, copy, skipped, walk};
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

const BEFORE: [&str; 5] = ["tokenize", "measure", "discover", "verify", "heads"];

/// A bench in which the stages before `cache` have run. They ran once.
fn ready() -> Bench {
    static READY: OnceLock<Bench> = OnceLock::new();
    let ready = READY.get_or_init(|| {
        let bench = Bench::new();
        bench.run(&BEFORE).succeeded();
        bench
    });
    let bench = Bench::new();
    copy(ready.path(), bench.path());
    bench
}

/// When each part of a table was written.
fn written(bench: &Bench, table: &str) -> Vec<(PathBuf, SystemTime)> {
    let mut files = Vec::new();
    walk(&bench.file("artifacts").join(table), &mut |path| {
        files.push((path.to_path_buf(), path.metadata().unwrap().modified().unwrap()));
    });
    files
}

fn status(bench: &Bench) -> String {
    bench.call(&["status"]).succeeded().out
}

#[test]
fn shards_at_the_same_time_give_the_bytes_of_one_run() {
    let bench = ready();
    // One of them twice, and one that has no part.
    let said = bench.together("cache", &["1/3", "2/3", "3/3", "1/3"]);
    assert!(said.iter().all(|said| said.err.starts_with("cache      shard ")), "{said:?}");
    assert!(status(&bench).contains("\ncache      would run: its last run did not finish\n"));
    // Every part of `cache` is there, so that nothing has to end it first.
    let said = bench.together("score", &["1/5", "2/5", "3/5", "4/5", "5/5"]);
    assert!(said[4].err.contains(" over 0 parts ("), "{}", said[4].err);
    let parts = [written(&bench, "activations"), written(&bench, "scores")];
    assert_eq!(parts.each_ref().map(Vec::len), [4, 4]);
    let said = bench.run(&[]).succeeded();
    assert_eq!(said.ran()[..2], ["cache", "score"]);
    assert!([written(&bench, "activations"), written(&bench, "scores")] == parts, "made again");
    bench.assert_same_results(&Bench::finished());
    let fresh = bench.run(&["score", "--shard", "1/2"]).succeeded();
    assert_eq!(fresh.err, "score      fresh\n");
}

#[test]
fn shards_are_shared_out_by_xargs() {
    let bench = ready();
    let program = env!("CARGO_BIN_EXE_circuit-atlas");
    for stage in ["cache", "score"] {
        let line = format!(
            "seq 4 | xargs -P 4 -I {{}} '{program}' run {stage} --shard {{}}/4 --config pipeline.toml"
        );
        let done = Command::new("sh").args(["-c", &line]).current_dir(bench.path()).output();
        bench.said(done.unwrap()).succeeded();
    }
    bench.run(&[]).succeeded();
    bench.assert_same_results(&Bench::finished());
}

#[test]
fn shards_of_a_changed_run_keep_what_they_can_and_remove_what_is_too_much() {
    let extra = "[score]\nextra = [\"att2.9\", \"mlp0.11\"]\n";
    let fewer = |bench: Bench| bench.set("max_contexts = 96", "max_contexts = 72").add(extra);
    let one = fewer(Bench::new());
    one.run(&[]).succeeded();
    let bench = fewer(Bench::finished());
    bench.run(&BEFORE).succeeded();
    // What the run before scored stands until a shard changes it; then nothing is shown.
    let question: &[&str] = &["show", "feature", "att1.3"];
    for stage in ["cache", "score"] {
        bench.together(stage, &["1/2", "2/2"]);
        assert_eq!(written(&bench, "activations").len(), 3);
        let said = bench.call(question).failed();
        assert!(said.error().contains("`cache` has not finished"), "{}", said.err);
    }
    bench.run(&[]).succeeded();
    bench.assert_same_results(&one);

    // Of the same contexts, parts are kept and only new features are scored.
    let bench = Bench::finished().add(extra);
    let said = bench.together("cache", &["1/2", "2/2"]);
    assert!(
        said.iter().all(|said| said
            .err
            .contains(" of 2 parts; 0 of 48 contexts run, the others as before (")),
        "{said:?}"
    );
    let said = bench.together("score", &["1/2", "2/2"]);
    assert!(
        said.iter().all(|said| said.err.contains(" over 2 parts, 2 of them new; 0 of 48 contexts")),
        "{said:?}"
    );
    bench.run(&[]).succeeded();
    let one = Bench::new().add(extra);
    one.run(&[]).succeeded();
    bench.assert_same_results(&one);
}

#[test]
fn a_killed_shard_goes_on_where_it_was() {
    let bench = ready();
    bench.together("cache", &["1/1"]);
    let first = bench.file("artifacts/scores/part-00000.parquet");
    // On a busy machine it may end before the kill arrives; then it is undone and tried again.
    let killed = (0..20).any(|_| {
        drop(std::fs::remove_dir_all(bench.file("artifacts/scores")));
        let mut child = bench.start(&["score", "--shard", "1/1"]);
        until("a part", || first.exists());
        child.kill().unwrap();
        !child.wait().unwrap().success()
    });
    assert!(killed, "it always ended before it was killed");
    // Another was killed while it wrote.
    let unfinished =
        bench.file("artifacts/scores/.part-00001.parquet.0123456789abcdef.circuit-atlas.tmp");
    let lock = bench.file("artifacts/.atlas.lock.0123456789abcdef.circuit-atlas.tmp");
    for path in [&unfinished, &lock] {
        std::fs::write(path, "half of it").unwrap();
    }
    let before = written(&bench, "scores");
    bench.together("score", &["1/2"]);
    let after = written(&bench, "scores");
    let kept = |(path, _): &&(PathBuf, SystemTime)| path.ends_with("part-00000.parquet");
    assert_eq!(before.iter().find(kept), after.iter().find(kept), "a finished part is made again");
    bench.together("score", &["1/1"]);
    assert!(unfinished.exists() && lock.exists(), "a shard cannot know whose they are");
    bench.run(&[]).succeeded();
    bench.assert_same_results(&Bench::finished());
}

#[test]
fn shards_and_whole_runs_do_not_work_on_a_folder_at_the_same_time() {
    let bench = ready();
    bench.together("cache", &["1/2"]);
    let open = || File::options().read(true).append(true).open(bench.file("artifacts/.running"));
    let shard = open().unwrap();
    shard.lock_shared().unwrap();
    for arguments in [&["run"][..], &["clean"]] {
        let said = bench.call(arguments).failed();
        assert!(said.error().starts_with("error: another run is using"), "{}", said.err);
    }
    bench.together("cache", &["2/2"]);
    let said = bench.call(&["status"]).succeeded();
    assert_eq!(said.err, "a run is going on: this is how far it is\n");
    assert!(said.out.contains("\ncache      is running\n"), "{}", said.out);
    let said = bench.call(&["show", "feature", "att1.3"]).failed();
    assert!(said.error().starts_with("error: a run is going on: `cache` has not"), "{}", said.err);
    drop(shard);
    assert_eq!(bench.call(&["status"]).succeeded().err, "");
    let whole = open().unwrap();
    whole.lock().unwrap();
    let said = bench.run(&["cache", "--shard", "1/2"]).failed();
    assert!(said.error().starts_with("error: another run is using"), "{}", said.err);
}

#[test]
fn what_cannot_run_in_shards_is_refused_by_name() {
    let (bench, new) = (ready(), Bench::new());
    let stream = ready().add("[cache]\nstore = \"stream\"\n");
    let cases: [(&Bench, &[&str], &str); 14] = [
        (&bench, &["cache", "--shard", "0/4"], "invalid value '0/4' for '--shard <I/N>': not I/N"),
        (&bench, &["cache", "--shard", "5/4"], "invalid value '5/4' for '--shard <I/N>': not I/N"),
        (&bench, &["cache", "--shard", "x"], "invalid value 'x' for '--shard <I/N>': not I/N"),
        (&bench, &["cache", "--shard", "1/2", "--force"], "'--shard <I/N>' cannot be used with"),
        (&bench, &["cache", "--shard", "1/2", "--from", "cache"], "cannot be used with"),
        (&bench, &["cache", "--shard", "1/2", "--dry-run"], "cannot be used with"),
        (&bench, &["--shard", "1/2"], "`--shard` is of one stage, and none are named"),
        (&bench, &["cache", "score", "--shard", "1/2"], "of one stage, and several are named"),
        (&bench, &["nothing", "--shard", "1/2"], "`nothing` is not a stage"),
        (&bench, &["tokenize", "--shard", "1/2"], "`tokenize` cannot run in shards"),
        (&stream, &["cache", "--shard", "1/2"], "`cache` cannot run in shards"),
        (
            &new,
            &["cache", "--shard", "1/2"],
            "hint: run the stages before it: `circuit-atlas run \
          tokenize measure discover verify heads`",
        ),
        (
            &bench,
            &["score", "--shard", "1/2"],
            "`score` needs the output of `cache`, which is not \
          fresh: it has never been run",
        ),
        (
            &stream,
            &["score", "--shard", "1/2"],
            "hint: run the stages before it: `circuit-atlas \
          run cache`",
        ),
    ];
    for (bench, arguments, expected) in cases {
        let said = bench.run(arguments).failed();
        assert!(said.error().contains(expected), "{arguments:?}: {}", said.err);
    }
    assert!(!bench.file("artifacts/activations").exists());
    assert_eq!(status(&bench), status(&ready()));
    // A part is missing, and another one is of an earlier run.
    bench.together("cache", &["1/2"]);
    let said = bench.run(&["score", "--shard", "1/2"]).failed();
    let expected = "`score` needs the output of `cache`, which is not fresh: its last run did not";
    assert!(said.error().contains(expected), "{}", said.err);
}

/// Waits for something.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(600), "{what} does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder with a program `sbatch` that keeps what it is given and answers with numbers from 1.
fn fake_sbatch() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sbatch");
    let text = format!(
        "#!/bin/sh\ncd {}\nn=$(($(ls | grep -c script) + 1))\necho \"$*\" > arguments-$n\n\
         cat > script-$n\necho \"$n;cluster\"\n",
        folder.path().display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// What a program `sbatch` was given, job by job: arguments and script.
fn given(folder: &Path) -> Vec<(String, String)> {
    let read = |name: String| std::fs::read_to_string(folder.join(name)).ok();
    let jobs = (1..).map(|n| Some((read(format!("arguments-{n}"))?, read(format!("script-{n}"))?)));
    jobs.map_while(|job| job).collect()
}

fn path_with(folder: &Path) -> String {
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

const SLURM: &str = "\
[slurm]
partition = \"long\"
account = \"lab-7\"
time = \"2-00:00:00\"
options = [\"--constraint=avx512\"]
";

#[test]
fn jobs_of_slurm_are_printed_as_they_are_submitted() {
    let folder = tempfile::Builder::new().prefix("it's 100% mine ").tempdir().unwrap();
    let bench = Bench::new_in(folder).add(SLURM);
    let printed = bench.call(&["slurm", "--print"]).succeeded();
    let plain = |text: &str| {
        let quoted = bench.path().to_str().unwrap().replace('\'', r"'\''");
        let doubled = bench.path().to_str().unwrap().replace('%', "%%");
        let program = env!("CARGO_BIN_EXE_circuit-atlas");
        let names = [(&*quoted, "[folder]"), (&*doubled, "[folder]"), (program, "[program]")];
        names.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to))
    };
    insta::assert_snapshot!("slurm", plain(&printed.out));
    assert!(!bench.file("slurm-logs").exists());

    let [by_program, by_shell] = [fake_sbatch(), fake_sbatch()];
    let mut slurm = bench.command(&["slurm"]);
    let said = bench.said(slurm.env("PATH", path_with(by_program.path())).output().unwrap());
    let expected = "tokenize           job 1\n\
                    discover           job 2, 2 tasks, after job 1\n\
                    verify             job 3, after job 2\n\
                    cache              job 4, 4 tasks, after job 3\n\
                    score              job 5, 4 tasks, after job 4\n\
                    aggregate          job 6, after job 5\n";
    assert_eq!(said.succeeded().out, expected);
    let output = bench.command(&["slurm", "--print"]).output().unwrap();
    for shell in ["sh", "bash"] {
        let script = bench.file("submit");
        std::fs::write(&script, &output.stdout).unwrap();
        let mut shell = Command::new(shell);
        let done = shell.arg(&script).env("PATH", path_with(by_shell.path())).output();
        let said = bench.said(done.unwrap()).succeeded();
        assert_eq!(said.out.lines().count(), 6, "{}", said.out);
    }
    let [by_program, by_shell] = [by_program, by_shell].map(|folder| given(folder.path()));
    assert_eq!(by_program.len(), 6);
    assert_eq!(by_program[3].0, "--parsable --dependency=afterok:3\n");
    assert_eq!(by_shell[..6], by_program);
    let scripts =
        |jobs: &[(String, String)]| jobs.iter().map(|job| job.1.clone()).collect::<Vec<_>>();
    assert_eq!(scripts(&by_shell[6..]), scripts(&by_program));
    assert!(bench.file("slurm-logs").is_dir());
}

#[test]
fn a_job_tries_again_unless_that_is_no_use() {
    let bench = Bench::new().add("[slurm]\nretries = 2\n");
    let fake = fake_sbatch();
    bench.said(bench.command(&["slurm"]).env("PATH", path_with(fake.path())).output().unwrap());
    let script = &given(fake.path())[3].1;
    // The program is one that fails with such codes in turn, and does not wait between.
    let (calls, program) = (bench.file("calls"), env!("CARGO_BIN_EXE_circuit-atlas"));
    let codes = |codes: &str| {
        let said = format!(
            "sleep() {{ :; }}; program() {{ echo \"$*\" >> '{}'; set -- {codes}; return \
             $(eval echo \\${{$(wc -l < '{}')}}); }}\n",
            calls.display(),
            calls.display()
        );
        drop(std::fs::remove_file(&calls));
        let script = script.replace(&format!("'{program}'"), "program");
        let task = ["SLURM_ARRAY_TASK_ID=3", "SLURM_CPUS_PER_TASK=1"].join(" ");
        let whole = format!("{task}\n{said}{script}");
        let done = Command::new("bash").args(["-c", &whole]).output().unwrap();
        let calls = std::fs::read_to_string(&calls).unwrap();
        let call =
            format!("run cache --shard 3/4 --config {}", bench.file("pipeline.toml").display());
        assert!(calls.lines().all(|line| line == call), "{calls}");
        (calls.lines().count(), done.status.code().unwrap())
    };
    assert_eq!(codes("0"), (1, 0));
    assert_eq!(codes("137 0"), (2, 0));
    assert_eq!(codes("75 137 0"), (3, 0));
    assert_eq!(codes("75 75 139 0"), (3, 139));
    for code in [1, 2, 3, 101, 130, 143] {
        assert_eq!(codes(&code.to_string()), (1, code));
    }
}

#[test]
fn jobs_depend_on_what_the_settings_say() {
    let printed = |bench: &Bench, more: &[&str]| {
        bench.call(&[&["slurm", "--print"], more].concat()).succeeded().out
    };
    let bench = Bench::new().add("[machine]\nthreads = 3\n");
    let text = printed(&bench, &["--shards", "7"]);
    assert_eq!(text.matches("#SBATCH --array=1-7\n").count(), 6);
    assert!(text.contains("--shard \"$SLURM_ARRAY_TASK_ID/7\""), "{text}");
    assert_eq!(text.matches("#SBATCH --cpus-per-task=3\n").count(), 11);
    assert!(!text.contains("RAYON_NUM_THREADS"), "{text}");
    // Nothing of `cache` is to be shared out.
    let bench = Bench::new().add("[cache]\nstore = \"stream\"\n[slurm]\nmemory = \"2G\"\n");
    let text = printed(&bench, &[]);
    assert!(text.contains(" run discover verify heads cache --config "), "{text}");
    assert_eq!(text.matches("#SBATCH --array=").count(), 2);
    assert_eq!(text.matches("#SBATCH --mem=2G\n").count(), 5);
    // Every feature's encoder is read at every token, and every prompt by all dictionaries.
    let large = "[slurm]\ncpus = 1\n[machine]\nthreads = 1\n";
    let all = format!("[score]\nfeatures = \"all\"\n{large}");
    let at_most = |settings: &str| {
        let bench = Bench::new().set("max_contexts = 96", "max_contexts = 9600000").add(settings);
        let text = printed(&bench, &[]);
        let job = text.split("\n\n").find(|job| job.contains("job-name=atlas-score")).unwrap();
        let time = job.split("--time=").nth(1).unwrap();
        time.split(':').next().unwrap().parse::<u32>().unwrap()
    };
    assert!(at_most(&all) > at_most(large));
    // A language model is asked in arrays where somebody says how many tasks; how long cannot be told.
    let asks = "[llm]\nprovider = \"openai\"\nmodel = \"m\"\nbase_url = \"http://localhost:1/v1\"\n\
                api_key_env = \"\"\n[evaluate]\nmethods = [\"detection\"]\n";
    let bench = Bench::new().add(asks);
    let text = printed(&bench, &["--shards", "3"]);
    let jobs: Vec<&str> = text.split("--job-name=atlas-").skip(1).collect();
    let job = |name: &str, command: &str| {
        let own = jobs.iter().find(|job| job.lines().next() == Some(name));
        let own = own.unwrap_or_else(|| panic!("no job {name}: {text}"));
        assert!(own.contains(&format!(" run {command} --config ")), "{own}");
        (own.contains("--array=1-3\n"), own.contains("--time="))
    };
    let share = |stage: &str| format!("{stage} --shard \"$SLURM_ARRAY_TASK_ID/3\"");
    for name in ["interpret-1", "interpret-2"] {
        assert_eq!(job(name, &share("interpret")), (true, false));
    }
    assert_eq!(job("causes", "aggregate causes"), (false, false));
    assert_eq!(job("interpret-end", "interpret"), (false, false));
    assert_eq!(job("evaluate", &share("evaluate")), (true, false));
    assert_eq!(printed(&bench, &[]).matches("run interpret").count(), 0);
    let refused = [
        ("partition = \"a b\"", "`slurm.partition = \"a b\"` is out of range"),
        ("account = \"-x\"", "`slurm.account = \"-x\"` is out of range"),
        ("time = \"soon\"", "`slurm.time = \"soon\"` is out of range"),
        ("memory = \"16 GB\"", "`slurm.memory = \"16 GB\"` is out of range"),
        ("options = [\"--array=1-9\"]", "`slurm.options = [\"--array=1-9\"]` is out of range"),
        ("options = [\"--a\\nb\"]", "`slurm.options = [\"--a\\nb\"]` is out of range"),
        ("options = [\"x\"]", "`slurm.options = [\"x\"]` is out of range"),
        ("logs = \"a\\\"b\"", "cannot be written into a script of Slurm"),
    ];
    for (line, expected) in refused {
        let bench = Bench::new().add(&format!("[slurm]\n{line}\n"));
        let said = bench.call(&["slurm", "--print"]).failed();
        assert!(said.error().contains(expected), "{line}: {}", said.err);
    }
}

#[test]
fn without_sbatch_the_jobs_can_be_printed() {
    let (bench, nothing) = (Bench::new(), tempfile::tempdir().unwrap());
    let said = bench.command(&["slurm"]).env("PATH", nothing.path()).output().unwrap();
    let said = bench.said(said).failed();
    assert!(said.error().starts_with("error: cannot run `sbatch`\n"), "{}", said.err);
    assert!(said.error().contains("`--print` prints a script"), "{}", said.err);
    // One that refuses the second job.
    let fake = fake_sbatch();
    let path = fake.path().join("sbatch");
    let text = std::fs::read_to_string(&path).unwrap();
    let refuses = "case $n in 2) echo 'no such partition' >&2; exit 1 ;; esac\necho \"$n";
    std::fs::write(&path, text.replace("echo \"$n", refuses)).unwrap();
    let said = bench.command(&["slurm"]).env("PATH", path_with(fake.path())).output().unwrap();
    let said = bench.said(said).failed();
    let expected = "error: `sbatch` does not take the job of `discover`: no such partition\n\
                    hint: see `[slurm]` in the settings; `scancel 1` removes the jobs that were \
                    submitted\n";
    assert_eq!(said.error(), expected);
}

/// A Slurm of two nodes on this machine, in a folder of its own.
struct Cluster {
    folder: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl Cluster {
    /// None where its programs are missing.
    fn start() -> Option<Cluster> {
        let programs = ["munged", "slurmctld", "slurmd", "sbatch"];
        let missing = programs.iter().find(|name| found(name).is_none());
        if let Some(name) = missing {
            skipped(&format!("there is no {name}: the packages slurm-wlm and munge have it"));
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster { folder, daemons: Vec::new() };
        cluster.start_munge();
        cluster.configure();
        for arguments in
            [&["slurmctld", "-D"][..], &["slurmd", "-D", "-N", "n1"], &["slurmd", "-D", "-N", "n2"]]
        {
            let child = cluster.command(arguments).spawn().unwrap();
            cluster.daemons.push(child);
        }
        until("the nodes are idle", || {
            cluster.says(&["sinfo", "-hN", "-o", "%N %T"]) == "n1 idle\nn2 idle\n"
        });
        Some(cluster)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start_munge(&mut self) {
        let key: Vec<u8> = (0..128).collect();
        std::fs::write(self.file("key"), key).unwrap();
        std::fs::set_permissions(self.file("key"), PermissionsExt::from_mode(0o400)).unwrap();
        let mut munged = self.command(&["munged", "--foreground", "--force"]);
        for (option, name) in
            [("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("seed-file", "seed")]
        {
            munged.arg(format!("--{option}={}", self.file(name).display()));
        }
        self.daemons.push(munged.spawn().unwrap());
        until("munge listens", || self.file("socket").exists());
    }

    fn configure(&self) {
        let says = |program: &mut Command| {
            String::from_utf8(program.output().unwrap().stdout).unwrap().trim().to_string()
        };
        let host = says(Command::new("hostname").arg("-s"));
        let user = says(Command::new("id").arg("-un"));
        let ports = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [controller, first, second] =
            ports.map(|listener| listener.local_addr().unwrap().port());
        let folder = self.folder.path().display();
        // Memory and CPUs are what is said, not what the machine has.
        let text = format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser={user}\nSlurmdUser={user}\n\
             AuthType=auth/munge\nAuthInfo=socket={folder}/socket,cred_expire=5\n\
             CredType=cred/munge\nSlurmctldPort={controller}\nStateSaveLocation={folder}/state\n\
             SlurmdSpoolDir={folder}/spool-%n\nSlurmctldPidFile={folder}/slurmctld.pid\n\
             SlurmdPidFile={folder}/slurmd-%n.pid\nSlurmctldLogFile={folder}/slurmctld.log\n\
             SlurmdLogFile={folder}/slurmd-%n.log\nProctrackType=proctrack/linuxproc\n\
             TaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\nMpiDefault=none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU_Memory\n\
             SchedulerParameters=batch_sched_delay=0,sched_interval=1\n\
             SlurmdParameters=config_overrides\nReturnToService=2\nMinJobAge=3600\n\
             NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 RealMemory=8192\n\
             NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 RealMemory=8192\n\
             PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP\n"
        );
        std::fs::write(self.file("slurm.conf"), text).unwrap();
        std::fs::write(self.file("cgroup.conf"), "CgroupPlugin=cgroup/v1\n").unwrap();
        for name in ["state", "spool-n1", "spool-n2"] {
            std::fs::create_dir(self.file(name)).unwrap();
        }
    }

    /// A program of Slurm, about this cluster.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(found(arguments[0]).unwrap());
        command.args(&arguments[1..]).env("SLURM_CONF", self.file("slurm.conf"));
        let log = File::options().create(true).append(true).open(self.file("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).stdout(Stdio::piped()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn does(&self, arguments: &[&str]) {
        let output = self.command(arguments).stderr(Stdio::piped()).output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {why}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.command(&["scancel", "--full", "-p", "main"]).status());
        // Those that were started last end first: each uses the ones before.
        for daemon in self.daemons.iter_mut().rev() {
            drop(Command::new("kill").arg(daemon.id().to_string()).status());
            drop(daemon.wait());
        }
    }
}

/// Where a program is: those of the system are in folders that not every user has on the path.
fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Kills a process that makes a shard of a stage, as the system does when memory runs out; the
/// shard's number.
fn killed(bench: &Bench, stage: &str) -> String {
    let settings = bench.file("pipeline.toml").to_str().unwrap().to_string();
    let mut killed = None;
    until("a shard to kill", || {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(line) = std::fs::read_to_string(entry.path().join("cmdline")) else { continue };
            let words: Vec<&str> = line.split('\0').collect();
            let [program, "run", name, "--shard", shard, "--config", of, ..] = words[..] else {
                continue;
            };
            if program != env!("CARGO_BIN_EXE_circuit-atlas") || name != stage || of != settings {
                continue;
            }
            let id = entry.file_name().into_string().unwrap();
            if Command::new("kill").args(["-KILL", &id]).output().unwrap().status.success() {
                killed = Some(shard.split('/').next().unwrap().to_string());
                return true;
            }
        }
        false
    });
    killed.unwrap()
}

#[test]
fn a_real_slurm_gives_the_bytes_of_one_machine() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = tempfile::Builder::new().prefix("two nodes ").tempdir().unwrap();
    let bench = Bench::new_in(folder).add("[slurm]\nmemory = \"1G\"\ncpus = 1\nshards = 3\n");
    let mut slurm = bench.command(&["slurm"]);
    let said = bench.said(slurm.env("SLURM_CONF", cluster.file("slurm.conf")).output().unwrap());
    let out = said.succeeded().out;
    let number = |stage: &str| {
        let named = |line: &&str| line.split_whitespace().next() == Some(stage);
        let line = out.lines().find(named).unwrap();
        line.split_whitespace().nth(2).unwrap().trim_end_matches(',').to_string()
    };
    let log = |stage: &str, task: &str| {
        let name = format!("slurm-logs/{stage}-{}{task}.log", number(stage));
        std::fs::read_to_string(bench.file(&name)).unwrap_or_default()
    };
    // A task whose process is killed tries again by itself.
    let task = killed(&bench, "cache");
    until("a retry", || log("cache", &format!("_{task}")).contains("exit code 137: retry 1 of 2"));
    until("the array's end", || log("cache", &format!("_{task}")).contains("cache      shard "));
    // One of a node that is drained while it waits to try again goes to the other node.
    let task = killed(&bench, "score");
    let name = format!("{}_{task}", number("score"));
    until("a retry", || log("score", &format!("_{task}")).contains("exit code 137: retry 1 of 2"));
    let node = cluster.says(&["squeue", "-h", "-j", &name, "-o", "%N"]).trim().to_string();
    let update = |state: &str| {
        let (node, state) = (format!("nodename={node}"), format!("state={state}"));
        cluster.does(&["scontrol", "update", &node, &state, "reason=test"]);
    };
    update("drain");
    cluster.does(&["scontrol", "requeue", &name]);
    until("the last job ends", || cluster.says(&["squeue", "-h"]).is_empty());
    let jobs = cluster.says(&["scontrol", "-o", "show", "jobs"]);
    let ended = |job: &str| job.contains(" JobState=COMPLETED ") && job.contains(" ExitCode=0:0 ");
    assert!(jobs.lines().count() == 23 && jobs.lines().all(ended), "{jobs}");
    let of_task = |job: &&str| {
        job.contains(&format!(" ArrayJobId={} ", number("score")))
            && job.contains(&format!(" ArrayTaskId={task} "))
    };
    let again = jobs.lines().find(of_task).unwrap();
    let other = if node == "n1" { "n2" } else { "n1" };
    assert!(again.contains(" Restarts=1 "), "{again}");
    assert!(again.contains(&format!(" NodeList={other} ")), "{again}");
    let state = |node: &str| cluster.says(&["sinfo", "-hN", "-n", node, "-o", "%T"]);
    assert_eq!(state(&node), "drained\n");
    update("resume");
    until("the node is back", || state(&node) == "idle\n");
    bench.assert_same_results(&Bench::finished());
    assert!(log("causes", "").contains("site/index.html"), "{}", log("causes", ""));
}
