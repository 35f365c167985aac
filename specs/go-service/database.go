package main

// #cgo LDFLAGS: -lsqlite3
// #include <sqlite3.h>
// static int product(int a, int b) {
//   sqlite3 *db;
//   sqlite3_stmt *statement;
//   int result = -1;
//   if (sqlite3_open(":memory:", &db) == SQLITE_OK
//       && sqlite3_prepare_v2(db, "select ?1 * ?2", -1, &statement, 0) == SQLITE_OK) {
//     sqlite3_bind_int(statement, 1, a);
//     sqlite3_bind_int(statement, 2, b);
//     if (sqlite3_step(statement) == SQLITE_ROW) result = sqlite3_column_int(statement, 0);
//     sqlite3_finalize(statement);
//   }
//   sqlite3_close(db);
//   return result;
// }
import "C"

// product asks SQLite.
func product(a, b int) int { return int(C.product(C.int(a), C.int(b))) }
