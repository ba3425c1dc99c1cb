/* A library for Lua 5.4 that makes any system call: what code that has broken out of Lua could do. */
#include <errno.h>
#include <stddef.h>
#include <unistd.h>

typedef struct lua_State lua_State;
extern int lua_gettop(lua_State *);
extern int lua_type(lua_State *, int);
extern const char *lua_tolstring(lua_State *, int, size_t *);
extern long long luaL_checkinteger(lua_State *, int);
extern void lua_pushinteger(lua_State *, long long);
extern void lua_pushcclosure(lua_State *, int (*)(lua_State *), int);

enum { STRING = 4 };

/* call(number, ...): strings are passed by their address. Returns the result and the error number. */
static int call(lua_State *lua) {
  long words[7] = {0};
  for (int index = 1; index <= 7 && index <= lua_gettop(lua); index++)
    words[index - 1] = lua_type(lua, index) == STRING ? (long)lua_tolstring(lua, index, NULL)
                                                      : (long)luaL_checkinteger(lua, index);
  errno = 0;
  long result = syscall(words[0], words[1], words[2], words[3], words[4], words[5], words[6]);
  lua_pushinteger(lua, result);
  lua_pushinteger(lua, result < 0 ? errno : 0);
  return 2;
}

int luaopen_probe(lua_State *lua) {
  lua_pushcclosure(lua, call, 0);
  return 1;
}
