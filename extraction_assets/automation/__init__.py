"""What runs when: the planner behind `status` and `update`, the sensor on landing/, the nightly schedule."""
