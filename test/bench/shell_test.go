package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nix-user-containers/nuc/test/harness"
)

// shells is a flake with two shells that differ in the hook. As there is no
// nixpkgs, they are what its mkShell is to Nix.
const shells = `{
  outputs = _:
    let
      nuc = import ./nuc { };
      system = "%[1]s";
      sh = name: script: derivation {
        inherit name system;
        builder = "/bin/sh";
        args = [ "-ec" script ];
        PATH = "/usr/bin:/bin";
      };
      web = {
        name = "bench-shell";
        nuc = "%[2]s";
        env = { PGHOST = "127.0.0.1"; PGPORT = "15432"; };
        descriptor = builtins.toFile "nuc-bench-shell.json" (nuc.mkDescriptor {
          name = "bench-shell";
          system = { init = "/sbin/init"; ttyGroup = 5; };
          root = { tree = "%[3]s"; ephemeral = true; };
        });
      };
      shell = shellHook: derivation {
        name = "shell";
        inherit system shellHook;
        builder = "/bin/bash";
        outputs = [ "out" ];
        stdenv = sh "stdenv" "mkdir $out; echo 'export PATH=/usr/bin:/bin' >$out/setup";
      };
    in
    {
      packages.${system}.descriptor = web.descriptor;
      devShells.${system} = {
        containers = shell (nuc.shellHook [ web ]);
        plain = shell "";
      };
    };
}
`

const withoutNuc = "without nuc"

// shellEnter enters a shell whose container runs, beside the same shell without
// it.
func shellEnter() *row {
	var flake string
	enter := func(shell string) func(*session) (float64, error) {
		return func(s *session) (float64, error) {
			return s.clock("nix", "--extra-experimental-features", "nix-command flakes", "develop", "--offline", flake+"#"+shell, "-c", "true")
		}
	}
	return &row{
		Name: "shell-enter", Unit: "ms", About: "nix develop -c true, of a shell whose container runs",
		Subjects: []*subject{
			{Name: "nuc", run: enter("containers")},
			{Name: withoutNuc, run: enter("plain")},
		},
		Wanted: []wanted{{Plus: 40, Of: withoutNuc}},
		runs:   21, warmUps: 2,
		setUp: func(s *session) error {
			if err := installed("nix"); err != nil {
				return notHere{fmt.Errorf("nix %w", err)}
			}
			if err := harness.NixDaemon(s.T); err != nil {
				return notHere{err}
			}
			s.H.Setenv("NIX_REMOTE", "daemon")
			s.H.NixFiles("project/nuc")
			s.H.Folder("package")
			if err := os.Symlink(s.H.Binary(), filepath.Join(s.H.Folder("package/bin"), "nuc")); err != nil {
				return err
			}
			s.H.Own("bench-shell")
			text := fmt.Sprintf(shells, harness.NixSystem(s.T), filepath.Join(s.H.Dir, "package"), s.H.Tree(debian))
			flake = "path:" + filepath.Dir(s.H.Write("project/flake.nix", text, 0o644))
			r := s.H.Host("nix", "--extra-experimental-features", "nix-command flakes", "eval", "--raw", flake+"#descriptor")
			if r.Code != 0 {
				return fmt.Errorf("%s", strconv.Quote(r.Stderr))
			}
			_, err := s.clock(s.H.Binary(), "up", r.Stdout)
			return err
		},
	}
}
