//go:build !faults

package fault

// At does nothing.
func At(string) {}

// Environment is what a child has to be given.
func Environment() []string { return nil }
