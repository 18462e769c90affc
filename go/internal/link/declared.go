package link

import (
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// Declared are the links of a descriptor.
func Declared(d *descriptor.Descriptor) []Spec {
	var specs []Spec
	for i, l := range d.Links {
		s := Spec{
			Client: End{Container: d.Name, Port: l.Listen}, Host: End{Container: l.To, Port: l.Port},
			Count: l.Count, Protocol: l.Protocol, Declared: true,
		}
		others := slices.Concat(d.Links[:i], d.Links[i+1:])
		switch {
		case l.Address != "":
			s.Addresses = []string{l.Address}
		case slices.ContainsFunc(others, func(o descriptor.Link) bool {
			return o.Protocol == l.Protocol && o.Listen < l.Listen+l.Count && l.Listen < o.Listen+o.Count
		}):
			s.Addresses = []string{descriptor.PeerAddress(l.To).String()}
		default:
			s.Addresses = []string{descriptor.PeerAddress(l.To).String()}
			// Where a service of the container's has them, it keeps them.
			s.Optional = []string{Localhost4, Localhost6}
		}
		specs = append(specs, s)
	}
	return specs
}

// Linker is what Declarations have links made and ended by: a Maker, here or in
// another process.
type Linker interface {
	// Replace makes a link, in the place of one of its name. Exited is called when
	// its process has ended, where no systemd looks after that.
	Replace(s *Spec, exited func()) error
	// End ends a link; os.ErrNotExist where there is none.
	End(name string) error
}

// ErrNoMore is an error of a Linker that makes no more links: it is not tried again.
var ErrNoMore = errors.New("no more links can be made")

// Replace makes a link in the place of one of its name: that was made by hand, or
// is left of a run that was killed.
func (m *Maker) Replace(s *Spec, exited func()) error {
	own := *m
	own.Exited = func(l state.Link) {
		if !l.Held() {
			exited()
		}
	}
	_, err := own.Make(s)
	var there ThereError
	if errors.As(err, &there) && there.Ends {
		if err := m.End(there.Name); err != nil {
			return err
		}
		_, err = own.Make(s)
	}
	return err
}

// End ends a link.
func (m *Maker) End(name string) error { return Remove(m.Folders, m.Folders.Link(name)) }

// Declarations keeps the links of one container's descriptor while it runs.
type Declarations struct {
	linker Linker
	warn   func(text string)

	// settling is held while links are made or ended.
	settling sync.Mutex
	all      sync.WaitGroup

	mu     sync.Mutex
	wanted map[string]Spec
	made   map[string]Spec
	retry  *time.Timer
}

// NewDeclarations has none yet. Warn is told of links that could not be made.
func NewDeclarations(l Linker, warn func(text string)) *Declarations {
	return &Declarations{linker: l, warn: warn, made: map[string]Spec{}}
}

// Apply makes the links that a descriptor declares, in the background, and ends
// those of an earlier one that it does not. Nil has none; Apply then returns
// when all have ended.
func (d *Declarations) Apply(desc *descriptor.Descriptor) {
	wanted := map[string]Spec{}
	if desc != nil {
		for _, s := range Declared(desc) {
			wanted[s.Name()] = s
		}
	}
	d.mu.Lock()
	idle := len(wanted) == 0 && len(d.wanted) == 0
	d.wanted = wanted
	if d.retry != nil {
		d.retry.Stop()
	}
	d.mu.Unlock()
	if idle {
		return
	}
	d.all.Go(d.settle)
	if desc == nil {
		d.all.Wait()
	}
}

// settle makes what is wanted of what there is.
func (d *Declarations) settle() {
	d.settling.Lock()
	defer d.settling.Unlock()
	d.mu.Lock()
	wanted, made := maps.Clone(d.wanted), maps.Clone(d.made)
	d.mu.Unlock()
	var ending sync.WaitGroup
	for name, s := range made {
		if w, ok := wanted[name]; ok && w.Equal(&s) {
			delete(wanted, name)
			continue
		}
		d.mu.Lock()
		delete(d.made, name)
		d.mu.Unlock()
		ending.Go(func() { d.end(name) })
	}
	ending.Wait()
	for name, s := range wanted {
		d.make(name, s)
	}
}

func (d *Declarations) make(name string, s Spec) {
	d.mu.Lock()
	d.made[name] = s
	d.mu.Unlock()
	err := d.linker.Replace(&s, func() { d.exited(name) })
	if err == nil {
		return
	}
	d.warn(err.Error())
	if !errors.Is(err, ErrNoMore) {
		d.again(name)
	}
}

func (d *Declarations) end(name string) {
	err := d.linker.End(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.warn(err.Error())
	}
}

// exited is told that a process without a systemd has ended. It is started anew
// while its link is wanted.
func (d *Declarations) exited(name string) {
	d.mu.Lock()
	_, made := d.made[name]
	d.mu.Unlock()
	if made {
		d.again(name)
	}
}

// again has a link made once more after a pause.
func (d *Declarations) again(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.made, name)
	if _, wanted := d.wanted[name]; !wanted {
		return
	}
	if d.retry != nil {
		d.retry.Stop()
	}
	d.retry = time.AfterFunc(lastPause/10, d.resettle)
}

func (d *Declarations) resettle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.wanted) > 0 {
		d.all.Go(d.settle)
	}
}
