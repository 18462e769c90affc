/* Makes the system calls that standard input names, one on a line, and says how
   each ended: 0 or the error's number.

   A line is the way into the kernel, the call and its arguments. By native and
   x32 the call is a name of the table; by int80, the calls of i386, a number. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALL(name) { #name, SYS_##name }

static const struct {
	const char *name;
	long number;
} calls[] = {
	CALL(acct), CALL(add_key), CALL(adjtimex), CALL(bpf), CALL(clock_adjtime), CALL(clock_settime),
	CALL(delete_module), CALL(finit_module), CALL(getpid), CALL(init_module), CALL(io_uring_enter),
	CALL(io_uring_register), CALL(io_uring_setup), CALL(ioctl), CALL(kexec_file_load), CALL(kexec_load),
	CALL(keyctl), CALL(open_by_handle_at), CALL(perf_event_open), CALL(personality), CALL(quotactl),
	CALL(quotactl_fd), CALL(request_key), CALL(settimeofday), CALL(swapoff), CALL(swapon), CALL(syslog),
	CALL(userfaultfd),
#ifdef __x86_64__
	CALL(_sysctl), CALL(ioperm), CALL(iopl), CALL(lookup_dcookie), CALL(nfsservctl), CALL(sysfs),
	CALL(uselib), CALL(ustat),
#endif
};

static long number(const char *call)
{
	long n = -1;
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(calls[i].name, call))
			n = calls[i].number;
	return n;
}

static long int80(long number, const long *a)
{
	long result = -ENOSYS;
#ifdef __x86_64__
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4])
			 : "memory", "r8", "r9", "r10", "r11");
#else
	(void)number, (void)a;
#endif
	return result;
}

int main(void)
{
	char line[512], way[16], call[64];
	while (fgets(line, sizeof line, stdin)) {
		long n, a[5] = { 0 };
		if (sscanf(line, "%15s %63s %li %li %li %li %li", way, call, a, a + 1, a + 2, a + 3, a + 4) < 2)
			return 2;
		if (!strcmp(way, "int80")) {
			if (sscanf(call, "%ld", &n) != 1)
				return 2;
			long result = int80(n, a);
			errno = result < 0 && result > -4096 ? -result : 0;
		} else {
			if ((n = number(call)) < 0)
				return 2;
			if (!strcmp(way, "x32"))
				n |= 0x40000000;
			if (syscall(n, a[0], a[1], a[2], a[3], a[4]) >= 0)
				errno = 0;
		}
		printf("%d\n", errno);
	}
	return 0;
}
