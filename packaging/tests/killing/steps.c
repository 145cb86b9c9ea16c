/*
 * Count what dpkg and everything under it does to the system, and end all of it at one step.
 *
 * Preloaded (LD_PRELOAD) into 'apt-get install' by packaging/tests/upgrade-killed. A step is an execve, a rename or
 * an unlink; its name is one line. STEPS_DIARY: a file that gets every name. STEPS_AT: the name to die at, before
 * it is done; STEPS_NTH: the n-th time it comes up; STEPS_COUNT: a file of one page, zeroed, in which all
 * processes count; STEPS_GROUP: cgroup.kill of the group they are all in, so that none outlives the others by an
 * instant. Build: cc -shared -fPIC -O1 -o steps.so steps.c
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern char **environ;

static void step(const char *what, const char *first, char *const rest[])
{
	char line[600];
	int length = snprintf(line, 400, "%s %s", what, first);
	if (length > 399)
		length = 399;
	for (int i = 1; rest && rest[0] && rest[i] && i < 4 && length < 500; i++)
		length += snprintf(line + length, 100, " %.60s", rest[i]);
	if (length > 560)
		length = 560;
	for (int i = 0; i < length; i++)
		if (line[i] == '\n')
			line[i] = ' ';
	line[length] = 0;
	const char *diary = getenv("STEPS_DIARY"), *at = getenv("STEPS_AT");
	if (diary) {
		int to = open(diary, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
		line[length] = '\n';
		if (to >= 0 && write(to, line, length + 1) < 0)
			_exit(99);
		close(to);
		line[length] = 0;
	}
	if (!at || strcmp(at, line))
		return;
	int counts = open(getenv("STEPS_COUNT"), O_RDWR | O_CLOEXEC);
	int *seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, counts, 0);
	if (seen == MAP_FAILED)
		_exit(99);
	if (__atomic_add_fetch(seen, 1, __ATOMIC_SEQ_CST) != atoi(getenv("STEPS_NTH")))
		return;
	int group = open(getenv("STEPS_GROUP"), O_WRONLY | O_CLOEXEC);
	if (write(group, "1", 1) != 1)
		_exit(99);
	for (;;)
		pause();
}

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

int execve(const char *path, char *const argv[], char *const envp[])
{
	step("exec", path, argv);
	return REAL(execve)(path, argv, envp);
}

int execv(const char *path, char *const argv[])
{
	step("exec", path, argv);
	return REAL(execv)(path, argv);
}

int execvp(const char *file, char *const argv[])
{
	step("exec", file, argv);
	return REAL(execvp)(file, argv);
}

int rename(const char *from, const char *to)
{
	step("rename", to, NULL);
	return REAL(rename)(from, to);
}

int renameat(int a, const char *from, int b, const char *to)
{
	step("rename", to, NULL);
	return REAL(renameat)(a, from, b, to);
}

int unlink(const char *path)
{
	step("unlink", path, NULL);
	return REAL(unlink)(path);
}
