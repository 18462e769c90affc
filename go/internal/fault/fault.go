// Package fault has points at which a process of nuc can be made to stand still,
// so that a test can kill it, or another, just there. In the nuc that people use
// there is nothing of it: the points are there with the build tag faults only
// (see test/faults).
package fault
