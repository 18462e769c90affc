package bench

import (
	"fmt"
	"strings"
)

// inOne is how many containers the project has.
const inOne = 5

// small is the tree of rows that start nothing of it but a shell: podman compose's
// copy of it is made anew for each measurement, and in a virtual machine it is
// unpacked first.
const small = "guest"

const oneAfterTheOther = "one after the other"

// projectUp brings a folder of containers up. Each is up when its first process
// runs, as that is all that podman compose waits for.
func projectUp() *row {
	var folder string
	var descriptors []string
	down := func(s *session) error {
		_, err := s.clock(s.H.Binary(), "down", folder)
		return err
	}
	together := func(s *session) (float64, error) {
		took, err := s.clock(s.H.Binary(), "up", folder)
		if err == nil {
			err = down(s)
		}
		return took, err
	}
	inTurn := func(s *session) (sum float64, err error) {
		for _, descriptor := range descriptors {
			took, err := s.clock(s.H.Binary(), "up", descriptor)
			if err != nil {
				return 0, err
			}
			sum += took
		}
		return sum, down(s)
	}
	compose := &composed{}
	return &row{
		Name: "project-up", Unit: "ms", About: "a folder of five containers, until the first process of each runs",
		Subjects: []*subject{
			{Name: "nuc", run: together},
			{Name: oneAfterTheOther, run: inTurn},
			{Name: "podman compose", prepare: compose.prepare, run: compose.run},
		},
		Wanted: []wanted{{AtMost: 0.6, Of: oneAfterTheOther}, {AtMost: 1, Of: "podman compose"}},
		runs:   21, warmUps: 2,
		setUp: func(s *session) error {
			folder = s.H.Folder("project")
			tree := s.H.Tree(small)
			for i := range inOne {
				name := fmt.Sprintf("bench-%d", i)
				s.H.Own(name)
				descriptors = append(descriptors, s.H.Write("project/"+name+".json", fmt.Sprintf(`{
  "version": 1, "name": "%s",
  "root": { "tree": "%s", "ephemeral": true },
  "system": { "init": "/bin/sh", "arguments": ["-c", "trap 'exit 0' TERM; sleep infinity & wait"], "stop": { "signal": "SIGTERM" } },
  "ready": { "notify": false },
  "network": { "outbound": false }
}`, name, tree), 0o644))
			}
			return nil
		},
	}
}

// composed is podman compose with as many containers of the same tree. Compose
// files name images: so the tree becomes one.
type composed struct{ file string }

const composedImage = "localhost/nuc-bench"

func (p *composed) prepare(s *session) error {
	for _, program := range []string{"podman", "podman-compose"} {
		if err := installed(program); err != nil {
			return fmt.Errorf("%s %w", program, err)
		}
	}
	// It leaves a process behind that keeps its user namespace, until it is told
	// to migrate.
	s.Cleanup(func() { _, _ = s.clock("podman", "system", "migrate") })
	tree := s.H.Tree(small)
	// Before the tree is copied.
	if _, err := s.clock("podman", "run", "--rm", "--network=none", "--log-driver=none", "--rootfs", tree+":O", "/bin/true"); err != nil {
		return err
	}
	if _, err := s.clock("sh", "-c", "podman unshare tar -C '"+tree+"' --numeric-owner -cf - . | podman import --quiet - "+composedImage+" >&2"); err != nil {
		return err
	}
	s.Cleanup(func() { _, _ = s.clock("podman", "rmi", "--force", composedImage) })
	var text strings.Builder
	text.WriteString("services:\n")
	for i := range inOne {
		fmt.Fprintf(&text, `  bench-%d:
    image: %s
    command: ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]
    network_mode: none
`, i, composedImage)
	}
	s.H.Folder("compose")
	p.file = s.H.Write("compose/compose.yaml", text.String(), 0o644)
	return nil
}

func (p *composed) run(s *session) (float64, error) {
	took, err := s.clock("podman-compose", "-f", p.file, "up", "-d")
	if err == nil {
		// Its status is 0 even if it started nothing, as that of Debian 12 does with
		// a network_mode.
		_, err = s.clock("sh", "-c", fmt.Sprintf(`n=$(podman ps -q --filter ancestor=%s | wc -l)
			test $n = %[2]d || { echo "podman-compose started $n of %[2]d containers" >&2; exit 1; }`, composedImage, inOne))
	}
	if _, derr := s.clock("podman-compose", "-f", p.file, "down"); err == nil {
		err = derr
	}
	return took, err
}
