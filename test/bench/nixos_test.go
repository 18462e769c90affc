package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
	"github.com/nix-user-containers/nuc/test/nixpkgs"
)

// isContainer is the subject without nuc's modules.
const isContainer = "boot.isContainer"

// pair is a minimal NixOS container twice: with nuc's profile, and with NixOS'
// own boot.isContainer alone. Neither has fonts nor a manual.
type pair struct {
	tree           nixpkgs.Tree
	profile, plain string // descriptors in the store
}

// build is the setUp of a pair's row.
func (p *pair) build(s *session) error {
	var err error
	if p.tree, err = s.nixpkgs(); err != nil {
		return err
	}
	if p.profile, err = p.tree.Build("bench.profile"); err == nil {
		p.plain, err = p.tree.Build("bench.plain")
	}
	return buildable(err)
}

// up is build, and both containers brought up and left to calm down.
func (p *pair) up(s *session) error {
	if err := p.build(s); err != nil {
		return err
	}
	for _, storePath := range []string{p.profile, p.plain} {
		descriptor, err := p.descriptor(s, storePath)
		if err != nil {
			return err
		}
		s.H.Must("up", descriptor)
	}
	time.Sleep(8 * time.Second)
	return nil
}

func (s *session) nixpkgs() (nixpkgs.Tree, error) {
	tree, err := nixpkgs.Prepared(s.T)
	if err != nil {
		return tree, notHere{err}
	}
	return tree, nil
}

// buildable makes it no failure that only a binary cache has a tree's packages.
func buildable(err error) error {
	if errors.Is(err, nixpkgs.ErrNotBuilt) {
		return notHere{err}
	}
	return err
}

// descriptor writes one of the store's, ephemeral: every start is a first one.
func (p *pair) descriptor(s *session, storePath string) (string, error) {
	d := map[string]any{}
	if err := p.tree.FromStore(d, storePath); err != nil {
		return "", err
	}
	harness.Section(d, "root")["ephemeral"] = true
	return s.write(d)
}

// write makes a descriptor's file.
func (s *session) write(d map[string]any) (string, error) {
	content, err := json.Marshal(d)
	if err != nil {
		return "", err
	}
	name, _ := d["name"].(string)
	s.H.Own(name)
	return s.H.Write(name+".json", string(content), 0o600), nil
}

// bootProfile starts both, from nothing to READY=1 of their systemd.
func bootProfile() *row {
	p := &pair{}
	start := func(storePath *string) func(*session) (float64, error) {
		return func(s *session) (float64, error) {
			descriptor, err := p.descriptor(s, *storePath)
			if err != nil {
				return 0, err
			}
			took, err := s.clock(s.H.Binary(), "up", descriptor)
			if err == nil {
				_, err = s.clock(s.H.Binary(), "kill", descriptor)
			}
			return took, err
		}
	}
	return &row{
		Name: "boot-profile", Unit: "ms", About: "a minimal NixOS container to ready, its first boot",
		Subjects: []*subject{
			{Name: "nuc", run: start(&p.profile)},
			{Name: isContainer, run: start(&p.plain)},
		},
		Wanted: []wanted{{AtMost: 0.6, Of: isContainer}},
		runs:   11, warmUps: 1,
		setUp: p.build,
	}
}

// counted is a row of what a shell in both containers counts.
func counted(name, about, script string) *row {
	count := func(container string) func(*session) (float64, error) {
		return func(s *session) (float64, error) {
			r := s.H.Exec(container, "sh", "-c", script)
			if r.Code != 0 {
				return 0, errors.New(r.Stderr)
			}
			return strconv.ParseFloat(strings.TrimSpace(r.Stdout), 64)
		}
	}
	p := &pair{}
	return &row{
		Name: name, About: about,
		Subjects: []*subject{
			{Name: "nuc", run: count("bench-profile")},
			{Name: isContainer, run: count("bench-plain")},
		},
		runs:  1,
		setUp: p.up,
	}
}

func profileUnits() *row {
	return counted("profile-units", "units that systemd has loaded in a minimal NixOS container",
		"systemctl list-units --all --plain --no-legend | wc -l")
}

// profileProcesses doesn't count the shell that counts.
func profileProcesses() *row {
	return counted("profile-processes", "processes left running in a minimal NixOS container",
		"set -- /proc/[0-9]*; echo $(($# - 1))")
}

// closure is a row of what the store has for both.
func closure(name, unit, about string, measure func(sizes map[string]float64) float64) *row {
	p := &pair{}
	of := func(storePath *string) func(*session) (float64, error) {
		return func(*session) (float64, error) {
			sizes, err := p.sizes(*storePath)
			return measure(sizes), err
		}
	}
	return &row{
		Name: name, Unit: unit, About: about,
		Subjects: []*subject{{Name: "nuc", run: of(&p.profile)}, {Name: isContainer, run: of(&p.plain)}},
		runs:     1,
		setUp:    p.build,
	}
}

// sizes is the closure of a descriptor without the Debian tree, whose links both
// have for packages: bytes by store path.
func (p *pair) sizes(storePath string) (map[string]float64, error) {
	out, err := p.tree.Run("nix-store", "--query", "--requisites", storePath)
	if err != nil {
		return nil, err
	}
	sizes := map[string]float64{}
	for _, path := range strings.Fields(string(out)) {
		if path == p.tree.Debian {
			continue
		}
		out, err := p.tree.Run("nix-store", "--query", "--size", path)
		if err != nil {
			return nil, err
		}
		if sizes[path], err = strconv.ParseFloat(strings.TrimSpace(string(out)), 64); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

func profileClosure() *row {
	return closure("profile-closure", "paths", "store paths of a minimal NixOS container",
		func(sizes map[string]float64) float64 { return float64(len(sizes)) })
}

func profileSize() *row {
	return closure("profile-size", "MiB", "their size, without the packages' own files, which are Debian's here",
		func(sizes map[string]float64) float64 {
			sum := 0.0
			for _, size := range sizes {
				sum += size
			}
			return sum / (1 << 20)
		})
}

// switches goes to and fro between two generations of a running NixOS container
// that differ in one unit.
func switches() *row {
	const one, bare = "bench-switch", "bench-switch-bare"
	var descriptors, toplevels [2]string
	turn := map[string]int{}
	next := func(name string) int {
		turn[name] = 1 - turn[name]
		return turn[name]
	}
	changed := &subject{Name: "nuc", run: func(s *session) (float64, error) {
		return s.clock(s.H.Binary(), "switch", descriptors[next(one)])
	}}
	same := &subject{Name: "nuc, no change", part: true, run: func(s *session) (float64, error) {
		return s.clock(s.H.Binary(), "switch", descriptors[turn[one]])
	}}
	script := &subject{Name: "the system's script alone", run: func(s *session) (float64, error) {
		return s.clock(s.H.Binary(), "exec", bare, toplevels[next(bare)]+"/bin/switch-to-configuration", "switch")
	}}
	return &row{
		Name: "switch", Unit: "ms", About: "a live switch of a NixOS container to a generation with one unit changed",
		Subjects: []*subject{changed, same, script},
		runs:     15, warmUps: 1,
		setUp: func(s *session) error {
			tree, err := s.nixpkgs()
			if err != nil {
				return err
			}
			for i, attribute := range []string{"bench.one", "bench.other"} {
				storePath, err := tree.Build(attribute)
				if err != nil {
					return buildable(err)
				}
				d := map[string]any{}
				if err := tree.FromStore(d, storePath); err != nil {
					return err
				}
				toplevels[i], _ = harness.Section(d, "system")["toplevel"].(string)
				content, err := json.Marshal(d)
				if err != nil {
					return err
				}
				descriptors[i] = s.H.Write(fmt.Sprintf("generation-%d.json", i), string(content), 0o600)
				if i == 0 {
					d["name"] = bare
					alone, err := s.write(d)
					if err != nil {
						return err
					}
					s.H.Must("up", alone)
				}
			}
			s.H.Own(one)
			s.H.Must("up", descriptors[0])
			return nil
		},
	}
}

// evaluate compares Nix' work: it evaluates and builds nothing. CPU time, as
// nothing else is waited for.
func evaluate() *row {
	var tree nixpkgs.Tree
	evaluated := func(attribute string) func(*session) (float64, error) {
		return func(*session) (float64, error) {
			cmd := tree.Command("nix-instantiate", "--eval", "--strict", "-E", tree.Expression("bench.evaluate."+attribute))
			if out, err := cmd.CombinedOutput(); err != nil {
				return 0, fmt.Errorf("%w: %s", err, out)
			}
			took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			return float64(took) / float64(time.Millisecond), nil
		}
	}
	const plain = "eval-config"
	return &row{
		Name: "evaluate", Unit: "ms", About: "CPU time of mkContainer of a configuration with six services, beside NixOS' own function",
		Subjects: []*subject{{Name: "nuc", run: evaluated("nuc")}, {Name: plain, run: evaluated("plain")}},
		Wanted:   []wanted{{AtMost: 1.05, Of: plain}},
		runs:     11, warmUps: 1,
		setUp: func(s *session) (err error) {
			tree, err = s.nixpkgs()
			return err
		},
	}
}
