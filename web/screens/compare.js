export const compare = () => () => {};
