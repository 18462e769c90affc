package keeper

import (
	"fmt"
	"os"

	"github.com/nix-user-containers/nuc/go/internal/nft"
)

// namespaces opens the keeper's own user and network namespace.
func namespaces() ([]*os.File, error) {
	user, err := os.Open("/proc/self/ns/user")
	if err != nil {
		return nil, err
	}
	network, err := os.Open("/proc/self/ns/net")
	if err != nil {
		user.Close()
		return nil, err
	}
	return []*os.File{user, network}, nil
}

// limit replaces the rules for what leaves the container's network.
func (k *keeper) limit(l *Limit) error {
	if len(l.Rules) > MaxRules {
		return fmt.Errorf("%d rules for the container's network: at most %d can be kept", len(l.Rules), MaxRules)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.table == nil {
		table, err := nft.Open()
		if err != nil {
			return err
		}
		k.table = table
	}
	return k.table.Set(l.Rules)
}
