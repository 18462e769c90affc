package notify

import (
	"net"
	"os"
)

// Manager is the service manager that nuc itself runs under.
type Manager struct {
	conn *net.UnixConn
}

// FindManager finds it by NOTIFY_SOCKET, which it takes out of the environment.
// It is nil where there is none.
func FindManager() *Manager {
	path := os.Getenv("NOTIFY_SOCKET")
	_ = os.Unsetenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// A name that begins with @ is an abstract socket's, for package net as for
	// sd_notify(3).
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return nil
	}
	return &Manager{conn}
}

// Tell sends lines of NAME=value, each of which ends in a line feed.
func (m *Manager) Tell(lines string) error {
	_, err := m.conn.Write([]byte(lines))
	return err
}

// Close ends the connection.
func (m *Manager) Close() error { return m.conn.Close() }
