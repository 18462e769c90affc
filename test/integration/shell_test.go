package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// shells is a flake with nuc's functions in it, and no nixpkgs: its shells are
// what mkShell of nixpkgs is to Nix, a derivation whose builder is bash.
const shells = `{
  outputs = _:
    let
      inherit (import ./nuc { }) mkDescriptor shellHook;
      system = "%[1]s";
      sh = name: script: derivation {
        inherit name system;
        builder = "/bin/sh";
        args = [ "-ec" script ];
        PATH = "/usr/bin:/bin";
      };
      container = attributes: {
        inherit (attributes) name;
        nuc = "%[2]s";
        env.PGHOST = "127.0.0.1";
        env.PGPORT = "%[3]s";
        descriptor = derivation {
          name = "nuc-${attributes.name}.json";
          inherit system;
          descriptor = mkDescriptor ({ root.tree = "%[4]s"; } // attributes);
          passAsFile = [ "descriptor" ];
          builder = "/bin/sh";
          args = [ "-ec" "/bin/cat $descriptorPath >$out" ];
        };
      };
      db = container {
        name = "db";
        system = { init = "/sbin/init"; ttyGroup = 5; };
        ready.units = [ "postgresql.service" ];
        network.ports = [ { host = %[3]s; container = 5432; } ];
      };
      # Asked to stop by SIGRTMIN+3, and again if that came before the trap.
      small = {
        init = "/bin/sh";
        arguments = [ "-c" "trap 'exit 0' 37; while :; do sleep 0.05; done" ];
      };
      lite = container {
        name = "lite";
        system = small;
        ready.notify = false;
      };
      # Is never ready.
      late = container {
        name = "late";
        system = small;
        ready.timeoutSeconds = 600;
      };
      shell = hook: derivation {
        name = "shell";
        inherit system;
        builder = "/bin/bash";
        outputs = [ "out" ];
        stdenv = sh "stdenv" ''
          mkdir $out
          echo 'export PATH=/usr/bin:/bin' >$out/setup
          echo 'runHook() { eval "''${!1}"; }' >>$out/setup
        '';
        shellHook = hook + "\nexport GREETING=hello\n";
      };
    in
    {
      devShells.${system} = {
        default = shell (shellHook { containers = [ db ]; keepSeconds = 1; });
        wait = shell (shellHook { containers = { inherit db; }; keepSeconds = 1; wait = true; });
        lite = shell (shellHook { containers = [ lite ]; keepSeconds = 1; });
        alive = shell (shellHook { containers = [ lite ]; keepAlive = true; });
        late = shell (shellHook { containers = [ late ]; keepSeconds = 0; });
      };
    };
}
`

// shellProject makes the flake and returns its reference.
func shellProject(h *harness.H) string {
	h.Helper()
	h.Setenv("NIX_REMOTE", "daemon")
	h.Setenv("NIX_CONFIG", "experimental-features = nix-command flakes\nflake-registry =\nsubstituters =")
	h.Setenv("TERM", "xterm")
	h.NixFiles("project/nuc")
	for _, folder := range []string{"package", "package/bin", "home", "home/.config", "home/.config/fish"} {
		h.Folder(folder)
	}
	if err := os.Symlink(h.Binary(), filepath.Join(h.Dir, "package/bin/nuc")); err != nil {
		h.Fatal(err)
	}
	h.Setenv("HOME", filepath.Join(h.Dir, "home"))
	port := strconv.Itoa(harness.FreePort(h))
	h.Write("project/flake.nix", fmt.Sprintf(shells, harness.NixSystem(h), filepath.Join(h.Dir, "package"), port, h.Tree("trixie")), 0o644)
	for _, name := range []string{"db", "lite", "late"} {
		h.Own(name)
	}
	return "path:" + filepath.Join(h.Dir, "project")
}

func needNix(t *testing.T) {
	t.Helper()
	switch err := harness.NixDaemon(t); {
	case err != nil && os.Geteuid() == 0:
		t.Fatal(err)
	case err != nil:
		t.Skip(err)
	}
}

// A shell of nix develop, on two terminals at once, with PostgreSQL.
func TestDevelop(t *testing.T) {
	needNix(t)
	h := harness.New(t)
	flake := shellProject(h)
	var shells []*harness.Process
	var terminals []*harness.Terminal
	for range 2 {
		p, terminal := h.StartHostTerminal(24, 200, "nix", "develop", "--offline", flake)
		shells, terminals = append(shells, p), append(terminals, terminal)
	}
	for i, terminal := range terminals {
		terminal.Type("until pg_isready; do sleep 0.2; done; echo $GREETING-$((1+1))\n")
		shells[i].WaitOutput("accepting connections", 2*patience)
		shells[i].WaitOutput("hello-2", patience)
	}
	h.Roles() // fails if there are two
	st := awaitLeases(h, "db", 2)
	for i, p := range shells {
		// nix executes bash.
		if st.Leases[0].PID != p.Pid() && st.Leases[1].PID != p.Pid() {
			t.Errorf("shell %d, process %d, has no lease: %+v", i, p.Pid(), st.Leases)
		}
	}
	terminals[0].Type("exit\n")
	shells[0].Wait(patience)
	awaitLeases(h, "db", 1)
	h.WaitState("db", 2*patience, "ready")
	shells[1].Signal(unix.SIGKILL)
	h.WaitState("db", patience, "stopped")

	// With wait, db is up in the shell's first moment; the shell is one for a
	// command, without any of the environment but the folders of this test.
	pure := []string{"develop", "--offline", "--ignore-environment"}
	for _, name := range []string{"NIX_REMOTE", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"} {
		pure = append(pure, "--keep", name)
	}
	r := h.Host("nix", append(pure, flake+"#wait", "-c", "bash", "-c", "pg_isready && echo lease of $$")...)
	if r.Code != 0 || !strings.Contains(r.Stdout, "accepting connections") || strings.Contains(r.Stdout, "db: ready") || !strings.Contains(r.Stderr, "db: ready") {
		t.Errorf("nix develop of a command, pure, with wait:\n%s", r)
	}
	h.WaitState("db", patience, "stopped")
	h.NothingLeft()
}

func TestNixShell(t *testing.T) {
	needNix(t)
	h := harness.New(t)
	flake := shellProject(h)
	h.Setenv("NIX_BUILD_SHELL", "bash")
	p, terminal := h.StartHostTerminal(24, 200, "nix-shell", "-E", fmt.Sprintf("(builtins.getFlake %q).devShells.%s.lite", flake, harness.NixSystem(t)))
	terminal.Type("echo $GREETING-$((1+1))\n")
	p.WaitOutput("hello-2", patience)
	if st := awaitLeases(h, "lite", 1); st.Leases[0].PID != p.Pid() || !st.Leased {
		t.Errorf("%+v, the shell is process %d", st, p.Pid())
	}
	// Who keeps it alive, or starts it by hand, takes it over.
	if r := h.Host("nix", "develop", "--offline", flake+"#alive", "-c", "true"); r.Code != 0 || r.Stdout != "" {
		t.Errorf("%s", r)
	}
	terminal.Type("exit\n")
	p.Wait(patience)
	if st := awaitLeases(h, "lite", 0); st.Leased || st.State != "ready" {
		t.Errorf("kept alive: %+v", st)
	}
}

// The real direnv, in each shell on two terminals at once; they end in three
// ways.
func TestDirenv(t *testing.T) {
	needNix(t)
	for _, shell := range []struct {
		name, file, hook string
		end              func(*harness.Process, *harness.Terminal)
	}{
		{"bash", ".bashrc", `eval "$(direnv hook bash)"`, func(_ *harness.Process, t *harness.Terminal) { t.Type("exit\n") }},
		{"zsh", ".zshrc", `eval "$(direnv hook zsh)"`, func(p *harness.Process, _ *harness.Terminal) { p.Signal(unix.SIGHUP) }},
		{"fish", ".config/fish/config.fish", "direnv hook fish | source", func(p *harness.Process, _ *harness.Terminal) { p.Signal(unix.SIGKILL) }},
	} {
		t.Run(shell.name, func(t *testing.T) {
			h := harness.New(t)
			flake := shellProject(h)
			h.Write(filepath.Join("home", shell.file), shell.hook+"\n", 0o600)
			h.Write("project/.envrc", "use flake "+flake+"#lite --offline\n", 0o600)
			folder := filepath.Join(h.Dir, "project")
			if r := h.Host("direnv", "allow", folder); r.Code != 0 {
				t.Fatalf("%s", r)
			}
			var shells []*harness.Process
			var terminals []*harness.Terminal
			for range 2 {
				p, terminal := h.StartHostTerminal(24, 200, shell.name, "-i")
				shells, terminals = append(shells, p), append(terminals, terminal)
				terminal.Type("cd " + folder + "\n")
			}
			for i, terminal := range terminals {
				terminal.Type("echo $GREETING'-there'\n")
				shells[i].WaitOutput("hello-there", patience)
			}
			st := awaitLeases(h, "lite", 2)
			h.Roles() // fails if there are two
			for _, p := range shells {
				if st.Leases[0].PID != p.Pid() && st.Leases[1].PID != p.Pid() || st.Leases[0].Command != shell.name {
					t.Errorf("process %d has no lease: %+v", p.Pid(), st.Leases)
				}
			}
			// Loaded anew, it is the same shell.
			terminals[0].Type("direnv reload\n")
			terminals[0].Type("echo again'-'$GREETING\n")
			shells[0].WaitOutput("again-hello", patience)
			if st := leasesOf(h, "lite"); len(st.Leases) != 2 {
				t.Errorf("after a reload: %+v", st)
			}
			// Elsewhere, the shell still is one that comes back.
			terminals[0].Type("cd /\n")
			terminals[0].Type("echo elsewhere'-'\"$GREETING\".\n")
			shells[0].WaitOutput("elsewhere-.", patience)
			shell.end(shells[0], terminals[0])
			awaitLeases(h, "lite", 1)
			shell.end(shells[1], terminals[1])
			h.WaitState("lite", patience, "stopped")
			for _, p := range shells {
				p.Wait(patience)
			}
			h.NothingLeft()
		})
	}
}

// direnv for an editor or a command, with a container that never gets ready:
// nothing waits for it.
func TestDirenvNeverBlocks(t *testing.T) {
	needNix(t)
	h := harness.New(t)
	flake := shellProject(h)
	h.Write("project/.envrc", "use flake "+flake+"#late --offline\n", 0o600)
	folder := filepath.Join(h.Dir, "project")
	if r := h.Host("direnv", "allow", folder); r.Code != 0 {
		t.Fatalf("%s", r)
	}
	editor := h.StartHost("bash", "-c", fmt.Sprintf("cd %s; direnv export json; echo; echo exported; read -r", folder))
	editor.WaitOutput("exported", patience)
	if !strings.Contains(editor.Output(), `"GREETING": "hello"`) {
		t.Errorf("direnv exports:\n%s", editor.Output())
	}
	st := awaitLeases(h, "late", 1)
	if st.State != "starting" || st.Leases[0].PID != editor.Pid() {
		t.Errorf("%+v, the editor is process %d", st, editor.Pid())
	}
	command := h.StartHost("direnv", "exec", folder, "cat")
	if st := awaitLeases(h, "late", 2); st.Leases[1].PID != command.Pid() {
		t.Errorf("%+v, the command is process %d", st, command.Pid())
	}
	editor.Signal(unix.SIGKILL)
	command.Signal(unix.SIGKILL)
	h.WaitState("late", patience, "stopped")
	h.NothingLeft()
}

// What failed is told where the next shell begins, and does not keep it from
// beginning.
func TestDevelopAfterFailure(t *testing.T) {
	needNix(t)
	h := harness.New(t)
	flake := shellProject(h)
	enter := func() harness.Result {
		return h.Host("nix", "develop", "--offline", flake, "-c", "bash", "-c", "echo $PGPORT")
	}
	first := enter()
	port := strings.TrimSpace(first.Stdout)
	h.WaitState("db", 2*patience, "stopped")
	taken, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatalf("%v\n%s", err, first)
	}
	if r := enter(); r.Code != 0 || strings.Contains(r.Stderr, "ended last time") {
		t.Errorf("%s", r)
	}
	h.WaitState("db", patience, "failed")
	taken.Close()
	begun := time.Now()
	r := enter()
	if r.Code != 0 || strings.TrimSpace(r.Stdout) != port || strings.Count(r.Stderr, "nuc: ") != 1 || !strings.Contains(r.Stderr, "nuc: container db: ended last time: ") || !strings.Contains(r.Stderr, port) {
		t.Errorf("after %s:\n%s", time.Since(begun), r)
	}
	h.WaitState("db", 2*patience, "stopped")
}
