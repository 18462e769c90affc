package bench

import (
	"fmt"

	"github.com/nix-user-containers/nuc/test/harness"
)

// project is a flake whose container is a Debian tree. Before its descriptor is
// made, `first` is evaluated.
const project = `{
  %s
  outputs = inputs:
    let
      nuc = import ./nuc { };
      system = "%s";
      first = %s;
      descriptor = nuc.mkDescriptor {
        name = "%s";
        system = { init = "/sbin/init"; ttyGroup = 5; };
        root = { tree = "%s"; ephemeral = true; };
      };
    in
    {
      nucContainers.${system}.web.descriptor = builtins.seq first (derivation {
        name = "nuc-web.json";
        inherit system descriptor;
        passAsFile = [ "descriptor" ];
        builder = "/bin/sh";
        args = [ "-ec" "/bin/cat $descriptorPath >$out" ];
      });
    };
}
`

const evaluation = "evaluation"

// again is a row of `nuc up .#web` on a project that didn't change and whose
// container runs.
func again(name, container, about string, inputs func(*session) (flake, first string, err error)) *row {
	var folder, attribute string
	nix := func(args ...string) func(*session) (float64, error) {
		return func(s *session) (float64, error) {
			return s.clock("nix", append(append([]string{"--extra-experimental-features", "nix-command flakes"}, args...), attribute)...)
		}
	}
	return &row{
		Name: name, Unit: "ms", About: about,
		Subjects: []*subject{
			{Name: "nuc", run: func(s *session) (float64, error) { return s.clock(s.H.Binary(), "up", folder+"#web") }},
			{Name: evaluation, run: nix("eval", "--raw", "--option", "eval-cache", "false")},
			{Name: "nix build, with its cache", run: nix("build", "--no-link")},
		},
		runs: 11, warmUps: 1,
		setUp: func(s *session) error {
			if err := installed("nix"); err != nil {
				return notHere{fmt.Errorf("nix %w", err)}
			}
			if err := harness.NixDaemon(s.T); err != nil {
				return notHere{err}
			}
			flake, first, err := inputs(s)
			if err != nil {
				return err
			}
			s.H.Setenv("NIX_REMOTE", "daemon")
			s.H.NixFiles("project/nuc")
			s.H.Own(container)
			system := harness.NixSystem(s.T)
			path := s.H.Write("project/flake.nix", fmt.Sprintf(project, flake, system, first, container, s.H.Tree(debian)), 0o644)
			folder = path[:len(path)-len("/flake.nix")]
			attribute = folder + "#nucContainers." + system + ".web.descriptor"
			_, err = s.clock(s.H.Binary(), "up", folder+"#web")
			return err
		},
	}
}

// upAgain has a project that evaluates a whole NixOS.
func upAgain() *row {
	r := again("up-again", "bench-again", "nuc up .#web on an unchanged project with NixOS, which runs", func(s *session) (flake, first string, err error) {
		tree, err := s.nixpkgs()
		if err != nil {
			return "", "", err
		}
		flake = fmt.Sprintf(`inputs.nixpkgs = { url = "path:%s"; flake = false; };`, tree.Nixpkgs)
		first = `(nuc.mkContainer {
        name = "web";
        inherit (inputs) nixpkgs;
        inherit system;
        modules = [ { services.nginx.enable = true; services.postgresql.enable = true; } ];
      }).descriptor.drvPath`
		return flake, first, nil
	})
	r.Wanted = []wanted{{AtMost: 0.1, Of: evaluation}}
	return r
}

// upAgainBare has one that needs no nixpkgs: what is left is Nix' own start.
func upAgainBare() *row {
	return again("up-again-bare", "bench-bare", "the same without nixpkgs: a project of one descriptor", func(*session) (flake, first string, err error) {
		return "", "null", nil
	})
}
