package link

import (
	"os"
	"path/filepath"

	"github.com/nix-user-containers/nuc/go/internal/landlock"
)

// confine takes from the process all that a link does not need any more when it
// listens: it starts nothing, and of files there are its folder, the containers'
// control sockets, and a Unix socket of the host's.
func (p *process) confine() {
	p.confining.Do(func() {
		if _, err := landlock.Confine(p.needs()); err != nil {
			p.log.Info("the link is not confined", "reason", err)
		}
	})
}

// confineUnbound is for all links but those that listen at a path of the host's:
// they wait until that is bound, as its folder may not be there before.
func (p *process) confineUnbound() {
	if p.spec.Client.Path == "" || p.spec.Client.Container != "" {
		p.confine()
	}
}

func (p *process) needs() landlock.Rules {
	r := landlock.Rules{
		Write:     []string{p.folder.Folder},
		List:      []string{p.f.Runtime},
		Tidy:      []string{p.f.Runtime},
		Connect:   []string{p.f.Runtime},
		TCP:       p.spec.tcp(),
		NoSignals: true,
	}
	if path := p.spec.Client.Path; path != "" && p.spec.Client.Container == "" {
		r.Sockets = []string{filepath.Dir(path)}
	}
	if path := p.spec.Host.Path; path != "" && p.spec.Host.Container == "" {
		r.Connect = append(r.Connect, existing(filepath.Dir(path)))
	}
	return r
}

// existing is the folder, or the nearest above that there is: a service may yet
// make its own.
func existing(folder string) string {
	for folder != "/" && !isThere(folder) {
		folder = filepath.Dir(folder)
	}
	return folder
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// maxPorts bounds the rules that each thread is to have in the kernel.
const maxPorts = 256

// tcp are the ports that the process itself binds and connects, nil for any: a
// container's sockets come bound, but not connected.
func (s *Spec) tcp() *landlock.Ports {
	ports := &landlock.Ports{}
	if s.Protocol != TCP {
		return ports
	}
	if s.Count > maxPorts {
		return nil
	}
	for i := range s.Count {
		if s.Client.Container == "" && s.Client.Path == "" {
			ports.Bind = append(ports.Bind, uint16(s.Client.Port+i))
		}
		if s.Host.Path == "" {
			ports.Connect = append(ports.Connect, uint16(s.Host.Port+i))
		}
	}
	return ports
}
