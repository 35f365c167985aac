Hello from PHP, <?= mb_strtoupper("über nginx") ?>.
