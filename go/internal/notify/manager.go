package notify

import (
	"net"
	"os"
	"strconv"
	"time"
)

// Manager is the service manager that nuc itself runs under.
type Manager struct {
	// Watchdog is within what time it wants to hear that all is well, 0 if not at
	// all (sd_watchdog_enabled(3)).
	Watchdog time.Duration
	conn     *net.UnixConn
}

// FindManager finds it by NOTIFY_SOCKET, which it takes out of the environment,
// as what says how it watches. It is nil where there is none.
func FindManager() *Manager {
	path := os.Getenv("NOTIFY_SOCKET")
	watchdog := watchdogTime(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID"))
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name)
	}
	if path == "" {
		return nil
	}
	// A name that begins with @ is an abstract socket's, for package net as for
	// sd_notify(3).
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return nil
	}
	return &Manager{Watchdog: watchdog, conn: conn}
}

func watchdogTime(microseconds, pid string) time.Duration {
	n, err := strconv.ParseInt(microseconds, 10, 64)
	if err != nil || n <= 0 || n > int64(24*time.Hour/time.Microsecond) || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// Tell sends lines of NAME=value, each of which ends in a line feed.
func (m *Manager) Tell(lines string) error {
	_, err := m.conn.Write([]byte(lines))
	return err
}

// Close ends the connection.
func (m *Manager) Close() error { return m.conn.Close() }
