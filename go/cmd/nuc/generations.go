package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type generationsCommand struct {
	Name            *string `arg:"" name:"name|project" optional:"" help:"Container, or its project's folder; without one, the folder you are in."`
	DeleteOlderThan *string `placeholder:"AGE" help:"Delete those that were made longer ago than this, but the current one and the one that runs: 30d, 12h, 2w."`
	JSON            bool    `name:"json" help:"As JSON."`
}

func (generationsCommand) Help() string {
	return `A generation is a descriptor that the container was started with or switched
to. Nix keeps what it needs until it is deleted.

Examples:
  nuc generations web
  nuc generations web --delete-older-than 30d`
}

// generation is what generations prints of one.
type generation struct {
	Number   int       `json:"generation"`
	Current  bool      `json:"current"`
	Time     time.Time `json:"time"`
	Toplevel string    `json:"toplevel,omitempty"`
	Path     string    `json:"descriptor"`
}

func (g *generationsCommand) Run(c *context) error {
	container, err := c.find(hereOr(g.Name))
	if err != nil {
		return err
	}
	list, err := container.Generations()
	if err != nil {
		return err
	}
	current, _, err := container.Current()
	if err != nil {
		return err
	}
	if g.DeleteOlderThan != nil {
		return deleteGenerations(c, container, list, current, *g.DeleteOlderThan)
	}
	found := []generation{}
	for _, one := range list {
		toplevel := ""
		if d, _, err := descriptor.ReadFile(one.Path); err == nil {
			toplevel = d.System.Toplevel
		}
		found = append(found, generation{one.Number, one.Number == current, one.Time, toplevel, one.Path})
	}
	if g.JSON {
		return writeJSON(c.stdout, found)
	}
	rows := [][]string{{"GENERATION", "MADE", "CURRENT", "SYSTEM"}}
	for _, one := range found {
		mark := ""
		if one.Current {
			mark = "current"
		}
		what := one.Toplevel
		if what == "" {
			what = one.Path
		}
		rows = append(rows, []string{strconv.Itoa(one.Number), one.Time.Format(time.DateTime), mark, what})
	}
	return table(c.stdout, rows)
}

func deleteGenerations(c *context, container state.Container, list []state.Generation, current int, age string) error {
	limit, err := parseAge(age)
	if err != nil {
		return exitStatus{statusUsage, err}
	}
	running, err := runningGeneration(container)
	if err != nil {
		return fmt.Errorf("container %s: %w; nothing was deleted", container.Name, err)
	}
	deleted := 0
	for _, one := range list {
		if one.Number == current || one.Number == running || time.Since(one.Time) < limit {
			continue
		}
		if err := container.Drop(one.Number); err != nil {
			return fmt.Errorf("container %s: generation %d: %w", container.Name, one.Number, err)
		}
		deleted++
	}
	fmt.Fprintf(c.stdout, "%s: %d of %d generations deleted\n", container.Name, deleted, len(list))
	return nil
}

// runningGeneration is the one that the container has now, 0 if it doesn't run:
// after nuc switch --boot, that is not the current one.
func runningGeneration(container state.Container) (int, error) {
	st, err := supervisor.Query(container)
	switch {
	case err == nil:
		return st.Generation, nil
	case container.Held():
		return 0, err
	}
	return 0, nil
}

// parseAge reads 30d, 2w, 12h, 90m.
func parseAge(text string) (time.Duration, error) {
	units := map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if text != "" {
		n, err := strconv.ParseUint(text[:len(text)-1], 10, 16)
		if unit := units[text[len(text)-1]]; err == nil && unit != 0 && time.Duration(n) <= math.MaxInt64/unit {
			return time.Duration(n) * unit, nil
		}
	}
	return 0, fmt.Errorf("--delete-older-than %q: a number with m, h, d or w expected, such as 30d", text)
}

type diffCommand struct {
	Name *string `arg:"" name:"name|project" optional:"" help:"Container, or its project's folder; without one, the folder you are in."`
	From *int    `arg:"" optional:"" name:"from" help:"Generation to compare; without it, the one before the current one."`
	To   *int    `arg:"" optional:"" name:"to" help:"Generation to compare it with; without it, the current one."`
	JSON bool    `name:"json" help:"As JSON."`
}

func (diffCommand) Help() string {
	return `Shows the keys of the descriptor that differ, and of NixOS systems the units and
packages.

Examples:
  nuc diff web
  nuc diff web 3 5`
}

func (d *diffCommand) Run(c *context) error {
	container, err := c.find(hereOr(d.Name))
	if err != nil {
		return err
	}
	from, to, err := generationPair(container, d.From, d.To)
	if err != nil {
		return err
	}
	a, err := readGeneration(container, from)
	if err != nil {
		return err
	}
	b, err := readGeneration(container, to)
	if err != nil {
		return err
	}
	changes := compare(a, b)
	changes.From, changes.To = from, to
	if d.JSON {
		return writeJSON(c.stdout, changes)
	}
	return changes.print(c)
}

// generationPair fills in the generations that were not named.
func generationPair(container state.Container, from, to *int) (int, int, error) {
	if to == nil {
		current, _, err := container.Current()
		if err != nil {
			return 0, 0, err
		}
		to = &current
	}
	if from == nil {
		earlier, err := before(container, *to)
		return earlier, *to, err
	}
	return *from, *to, nil
}

// before is the newest generation that is older than one.
func before(container state.Container, n int) (int, error) {
	list, err := container.Generations()
	if err != nil {
		return 0, err
	}
	found := 0
	for _, one := range list {
		if n > 0 && one.Number >= n {
			continue
		}
		if _, err := readGeneration(container, one.Number); err == nil {
			found = one.Number
		}
	}
	if found == 0 {
		return 0, fmt.Errorf("container %s: there is no generation before %d: see `nuc generations %s`", container.Name, n, container.Name)
	}
	return found, nil
}

func readGeneration(container state.Container, n int) (*descriptor.Descriptor, error) {
	source, err := container.Read(n)
	if err != nil {
		return nil, err
	}
	d, err := descriptor.Read(source)
	if err != nil {
		return nil, fmt.Errorf("container %s: generation %d: %w", container.Name, n, err)
	}
	return d, nil
}

// changes is what differs between two generations.
type changes struct {
	From     int      `json:"from"`
	To       int      `json:"to"`
	Keys     []change `json:"descriptor"`
	Units    []change `json:"units"`
	Packages []string `json:"packages"`
}

// change is one thing that differs; From or To is empty where it is not there.
type change struct {
	Name string `json:"name"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

func (ch *changes) print(c *context) error {
	fmt.Fprintf(c.stdout, "generation %d → %d\n", ch.From, ch.To)
	section := func(title string, list []change) {
		for _, one := range list {
			switch {
			case one.From == "" && one.To != "":
				fmt.Fprintf(c.stdout, "%s + %s%s\n", title, printable(one.Name), value(one.To))
			case one.To == "" && one.From != "":
				fmt.Fprintf(c.stdout, "%s - %s%s\n", title, printable(one.Name), value(one.From))
			case one.From == present && one.To == present:
				fmt.Fprintf(c.stdout, "%s ~ %s\n", title, printable(one.Name))
			default:
				fmt.Fprintf(c.stdout, "%s ~ %s%s →%s\n", title, printable(one.Name), value(one.From), value(one.To))
			}
		}
	}
	section("descriptor", ch.Keys)
	section("unit      ", ch.Units)
	for _, line := range ch.Packages {
		fmt.Fprintf(c.stdout, "package    %s\n", printable(line))
	}
	if len(ch.Keys)+len(ch.Units)+len(ch.Packages) == 0 {
		fmt.Fprintln(c.stdout, "nothing differs")
	}
	return nil
}

func value(text string) string {
	if text == present {
		return ""
	}
	return " " + printable(text)
}

// present is the value of what is only there or not.
const present = "present"

func compare(a, b *descriptor.Descriptor) changes {
	ch := changes{Keys: compareMaps(flatten(a), flatten(b)), Units: []change{}, Packages: []string{}}
	if a.System.Toplevel == "" || b.System.Toplevel == "" || a.System.Toplevel == b.System.Toplevel {
		return ch
	}
	ch.Units = withoutWants(compareMaps(units(a.System.Toplevel), units(b.System.Toplevel)))
	for i := range ch.Units {
		// Where a unit's file is says nothing to a person.
		one := &ch.Units[i]
		if one.From != "" {
			one.From = present
		}
		if one.To != "" {
			one.To = present
		}
	}
	ch.Packages = packages(a.System.Toplevel, b.System.Toplevel)
	return ch
}

// units maps the names of a NixOS system's units, of what is dropped into them
// and of what they want to where they lead.
func units(toplevel string) map[string]string {
	found := map[string]string{}
	folder := toplevel + "/etc/systemd/system"
	entries, err := os.ReadDir(folder)
	if err != nil {
		return found
	}
	for _, e := range entries {
		name := e.Name()
		if target, err := os.Readlink(folder + "/" + name); err == nil {
			found[name] = target
			continue
		}
		inner, _ := os.ReadDir(folder + "/" + name)
		for _, i := range inner {
			if target, err := os.Readlink(folder + "/" + name + "/" + i.Name()); err == nil {
				found[name+"/"+i.Name()] = target
			}
		}
	}
	return found
}

// withoutWants leaves out what wants a unit that came or went itself.
func withoutWants(list []change) []change {
	gone, come := map[string]bool{}, map[string]bool{}
	for _, one := range list {
		gone[one.Name], come[one.Name] = one.To == "", one.From == ""
	}
	return slices.DeleteFunc(list, func(one change) bool {
		_, unit, found := strings.Cut(one.Name, "/")
		return found && (one.To == "" && gone[unit] || one.From == "" && come[unit])
	})
}

// packages has Nix compare two closures.
func packages(a, b string) []string {
	out, err := nixCommand("store", "diff-closures", a, b)
	if err != nil {
		return []string{"not compared: " + err.Error()}
	}
	lines := []string{}
	for line := range strings.Lines(out) {
		// Each unit is a package of its own, and told as a unit.
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "unit-") {
			lines = append(lines, line)
		}
	}
	return lines
}
